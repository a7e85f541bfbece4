"""What lies where on one device, its host and its disks, and what is swapped rather than computed again."""
