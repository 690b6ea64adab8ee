"""A student learns what a teacher, its own average, says."""
