"""Sources: what is there to learn from, opened by `open_source`."""
