"""What runs at a desk: the library, the command line, the auditor, the witness."""
