"""Plans, measures and evaluates tables."""
