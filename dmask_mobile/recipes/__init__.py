"""The shipped recipes, as YAML."""
