"""What is trained in a world. Torch is imported here and nowhere above; what is trained is handed down as arrays."""
