"""Sweeps: one run for each budget and seed, on this machine or on Ray, and the Pareto front of what they found."""
