"""What a sensor pipeline takes and keeps: scores and thresholds, rates, energies. Pure functions of a `System`."""
