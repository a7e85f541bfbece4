"""What lies where, and what is swapped or computed again: one device with its host and disks; the pebble game."""
