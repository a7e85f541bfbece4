"""What a person sees of functions."""
