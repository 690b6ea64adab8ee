"""Contrastive learning: two views of one sample are alike, those of others are not."""
