"""Clusters and prototypes are the classes to be learned."""
