"""The formats to which children are exported."""
