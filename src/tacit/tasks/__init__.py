"""Kinds of targets, one per folder: how they are drawn, watched, graded, calibrated, predicted and probed."""
