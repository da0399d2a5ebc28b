"""All children of a space in one set of shared weights."""
