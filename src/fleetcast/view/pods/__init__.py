"""What a person sees of pods on nodes."""
