"""Floor 1: errors, units, specs, random streams, event record, files, the host. Knows nothing of fleets."""
