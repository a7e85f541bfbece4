"""What a model's sizes do to the products of a device: whole tiles, whole waves, aligned rows."""
