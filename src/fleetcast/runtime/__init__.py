"""The real clock: what runs and measures on machines at hand."""
