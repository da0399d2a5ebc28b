"""The formats that children are exported to."""
