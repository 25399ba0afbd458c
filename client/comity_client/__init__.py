"""What runs at a desk: the library, the command line, the local pages, the auditor, the witness."""
