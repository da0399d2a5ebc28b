"""Models of blocks and networks in a runtime's format."""
