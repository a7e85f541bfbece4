"""What a person sees of training: an iteration by term, plans in order, what is doubtful."""
