"""Reinforcement learning in the worlds; what is trained here is a file of weights that a policy reads."""
