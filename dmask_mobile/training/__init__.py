"""Data, training of a child, checkpoints."""
