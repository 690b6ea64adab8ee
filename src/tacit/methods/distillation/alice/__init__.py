"""Alice: the same place of the body in two patients."""
