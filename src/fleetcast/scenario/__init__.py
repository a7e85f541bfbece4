"""Floor 2: the nouns. Values that decide nothing."""
