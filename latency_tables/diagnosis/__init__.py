"""Finds devices and runtimes, and checks whether they work."""
