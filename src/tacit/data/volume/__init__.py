"""Volumes: how they are found, decoded and stored."""
