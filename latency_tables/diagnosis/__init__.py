"""What devices and runtimes there are, and whether they work."""
