"""Names that several kinds of targets give their rows."""

PIXELS, START = "pixels", "start encoder"
"""Floors: what the same labels give on raw samples, and on the encoder as it is before the run."""
