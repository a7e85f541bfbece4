"""Orders of tasks: the best there is, and which policy comes near it."""
