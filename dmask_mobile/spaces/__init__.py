"""Search spaces that ship, one YAML file each."""
