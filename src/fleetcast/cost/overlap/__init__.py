"""Overlap inside one device: compute, memory and network used at once by nano-batches of one iteration."""
