"""What a person sees of streams."""
