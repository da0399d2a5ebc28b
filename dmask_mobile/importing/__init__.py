"""A given network as the widest child of a search space: its architecture, its weights, the space around it."""
