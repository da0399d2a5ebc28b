"""Measured latency tables of devices, and predictions from them."""
