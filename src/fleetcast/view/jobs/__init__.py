"""What a person sees of many jobs on one fleet."""
