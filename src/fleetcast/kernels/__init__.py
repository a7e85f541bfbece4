"""Floor 0: arrays in, arrays out. Imports nothing of ours."""
