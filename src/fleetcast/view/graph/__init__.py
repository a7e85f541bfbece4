"""Task graphs on the screen: an outcome with its timeline, ranked policies, checks."""
