"""Where labelled images come from, and how networks get them."""
