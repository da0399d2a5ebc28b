"""Cost models: what a network costs, and what a supernet's gates expect it to cost."""
