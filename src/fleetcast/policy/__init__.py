"""Floor 4: the decisions. A folder is a decision, a file is a method; no clock, no I/O, no torch."""
