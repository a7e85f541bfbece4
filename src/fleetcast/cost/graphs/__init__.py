"""What the tasks of a graph take on each device of a fleet, and what no schedule of them can beat."""
