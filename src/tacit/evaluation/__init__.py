"""Evaluation: features, probes, health."""
