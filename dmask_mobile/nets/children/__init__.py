"""Published networks, one JSON file each."""
