"""What a person sees of jobs with parameter servers."""
