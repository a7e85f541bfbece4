"""Search for the best way to train a model: the whole space as columns, memory first, the exact best of it."""
