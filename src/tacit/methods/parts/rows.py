"""Where the samples of a batch stand in the source that is learned from, for methods that remember them."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.data.source import Source


def rows_of(source: Source) -> Tensor:
    """(largest index + 1,) int64: the row of a sample in `source` by its `Samples.index`."""
    index = torch.from_numpy(source.index) if hasattr(source, "index") else torch.arange(len(source))
    rows = torch.full((int(index.max()) + 1,), -1)
    rows[index] = torch.arange(len(index))
    return rows
