"""What a person sees of requests."""
