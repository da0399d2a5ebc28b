"""Cost models: the cost of a network, and the expected cost under the gates of a supernet."""
