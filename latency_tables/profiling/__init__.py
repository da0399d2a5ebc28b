"""Planning, measuring and judging tables."""
