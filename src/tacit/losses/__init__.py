"""Losses: public functions on tensors, useful alone."""
