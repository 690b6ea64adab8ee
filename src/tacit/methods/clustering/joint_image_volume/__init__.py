"""Slices of volumes and images together, then volumes."""
