"""The world of training: one iteration of one plan, from a scenario to an Outcome."""
