"""Devices that run models: one file for each, all with the same Protocol."""
