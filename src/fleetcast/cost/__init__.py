"""What one step takes: time, memory, energy, money, carbon."""
