"""Many jobs and pods on one fleet."""
