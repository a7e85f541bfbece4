"""Floor 1: errors, units, specs, random streams, event record, files. Knows nothing of fleets."""
