"""Labels that are classes."""
