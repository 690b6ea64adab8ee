"""Training: Lightning glue, the run folder, resuming."""
