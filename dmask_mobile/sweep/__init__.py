"""Sweeps: one run for each budget and seed, on this machine or with Ray, and the Pareto front of the results."""
