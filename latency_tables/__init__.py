"""Measured latency tables of devices, and what they predict."""
