"""tacit: learn from much data and few labels."""

from __future__ import annotations

__version__ = "0.1.0"
