"""Hardware-aware search and deployment of vision networks for phones."""

__version__ = "0.1.0"
