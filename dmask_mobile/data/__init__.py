"""Sources of labelled images, and how images are prepared for networks."""
