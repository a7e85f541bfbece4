"""The world of one big training job: pipelines as events, and the weeks around them."""
