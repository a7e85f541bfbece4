"""Evidence: each script measures claims and returns them as records (`benchmarks.records`)."""
