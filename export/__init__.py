"""Exports a trained child to formats for phones, and verifies the exported models."""
