"""A first-in-first-out memory of past embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.gather import gather
from tacit.rng import Rng


class Queue(nn.Module):
    """The last K embeddings, (K, D) unit vectors, at first random ones. Saved with the method.

    `put` remembers embeddings, `flush` moves them in after the optimiser's step, so that a loss
    never sees its own batch, also when gradients are accumulated over several parts.
    """

    rows: Tensor
    cursor: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        if length < 1:
            raise UsageError(f"a queue must hold at least 1 embedding, not {length}")
        noise = torch.randn(length, width, generator=Rng.of(0)("queue").torch())
        self.register_buffer("rows", F.normalize(noise, dim=1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))
        self._waiting: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.rows)

    def shorten(self, length: int) -> None:
        """Keep at most `length` rows; before the first step only."""
        self.rows = self.rows[:length].clone()

    def put(self, embeddings: Tensor) -> None:
        """Remember (N, D) embeddings of this process for the next `flush`; they are normalised here."""
        self._waiting.append(F.normalize(embeddings.detach().to(self.rows.dtype), dim=1))

    @torch.no_grad()
    def flush(self) -> None:
        """Move what was put, of all processes, into the queue in place of its oldest rows."""
        if not self._waiting:
            return
        new = gather(torch.cat(self._waiting))
        self._waiting.clear()
        skip = max(0, len(new) - len(self))
        place = (self.cursor + skip + torch.arange(len(new) - skip, device=new.device)) % len(self)
        self.rows.index_copy_(0, place, new[skip:])
        self.cursor.copy_((self.cursor + len(new)) % len(self))
