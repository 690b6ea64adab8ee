"""Labels that are masks."""
