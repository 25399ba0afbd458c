"""The web handlers, one file for each noun. They read, ask the gate, call, and write; no rules."""
