"""Devices that run models, one file each, behind one Protocol."""
