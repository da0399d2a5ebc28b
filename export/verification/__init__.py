"""Checks whether an exported file meets its predictions."""
