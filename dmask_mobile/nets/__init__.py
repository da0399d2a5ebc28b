"""Child networks as PyTorch modules."""
