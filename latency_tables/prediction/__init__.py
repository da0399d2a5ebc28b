"""What a table predicts: unmeasured blocks, and whole networks from their blocks."""
