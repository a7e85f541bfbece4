"""Floor 5: worlds on a logical clock."""
