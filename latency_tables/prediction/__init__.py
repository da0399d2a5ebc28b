"""Predictions from a table: blocks that were not measured, and whole networks from their blocks."""
