"""Swapped assignments: prototypes, the queue that spreads over more samples, and their loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.errors import UsageError
from tacit.losses.clustering import normalise_rows, sinkhorn, swapped_prediction
from tacit.losses.gather import gather, rank_and_world

ASSIGNING = 2
"""Views that give assignments: the first ones, the large crops."""

LARGEST = 3000
"""Prototypes, where nothing is said."""


class Recent(nn.Module):
    """The last embeddings of each assigning view, newest first, (views, L, D); zeros at first. Saved.

    Unlike `Queue` it is known when it is full, and each view has rows of its own. `put` remembers,
    `flush` moves in after the optimiser's step.
    """

    rows: Tensor

    def __init__(self, length: int, width: int, views: int = ASSIGNING) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(views, length, width))
        self._waiting: list[Tensor] = []
        self._full = False

    @property
    def full(self) -> bool:
        """Whether the last row is taken: once so, always so. Waits for the device until it is."""
        self._full = self._full or bool(self.rows[:, -1].any())
        return self._full

    def share(self, view: int) -> Tensor:
        """The rows of a view that are this process's to count: all processes together have each once."""
        rank, world = rank_and_world()
        return self.rows[view, rank::world]

    def put(self, embeddings: Sequence[Tensor]) -> None:
        """Remember (N, D) embeddings of each view, of this process, for the next `flush`."""
        self._waiting.append(torch.stack([e.detach().to(self.rows.dtype) for e in embeddings], dim=1))

    @torch.no_grad()
    def flush(self) -> None:
        """Move what was put, of all processes, in front; the oldest rows fall out."""
        if not self._waiting:
            return
        new = gather(torch.cat(self._waiting)).transpose(0, 1)
        self._waiting.clear()
        length = self.rows.shape[1]
        self.rows.copy_(torch.cat([new, self.rows], dim=1)[:, :length])


class SwappedAssignments(nn.Module):
    """The objective of SwAV on embeddings of any kind (Caron et al., 2020; arXiv 2006.09882).

    width: D of the embeddings. prototypes: K, or None for 3000 or as many as there are samples to spread
    over, if those are fewer. queue: rows of `Recent`, 0 for none. queue_from: share of the run at which
    it begins to fill. freeze: steps for which prototypes stand still, or None for one epoch.

    Call `loss` once per batch, or part of one, and `flush` after the optimiser's step.
    """

    def __init__(
        self,
        width: int,
        *,
        prototypes: int | None = None,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        queue_from: float = 0.0,
        freeze: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("prototypes", prototypes, 2), ("queue", queue, 0), ("freeze", freeze, 0)):
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, not {value}")
        if not 0 <= queue_from <= 1:
            raise UsageError(f"queue_from must lie in [0, 1], not {queue_from}")
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_from, self.freeze = queue_from, freeze
        self.given = prototypes is not None
        self.prototypes = nn.Linear(width, prototypes or LARGEST, bias=False)
        self.queue = Recent(queue, width) if queue else None
        self._kept: Tensor | None = None

    def loss(self, embeddings: Sequence[Tensor], step: Step) -> Tensor:
        """The swapped prediction loss, in nats.

        embeddings: (B, D) unit vectors of each view, at least two; the first two give assignments.

        Raises:
            UsageError: more prototypes were asked for than there are samples to spread over.
        """
        normalise_rows(self.prototypes.weight)
        weight = self.prototypes.weight[: self.count(len(embeddings[0]))]
        if self._frozen(step):
            self._kept = self.prototypes.weight.detach().clone()
            weight = weight.detach() + 0 * weight  # a gradient of zeros: DDP waits for one of each parameter
        with torch.autocast(weight.device.type, enabled=False):
            scores = [embedding @ weight.T for embedding in embeddings]
            targets = {a: self._targets(a, scores[a].detach(), weight.detach()) for a in range(ASSIGNING)}
        if self.queue is not None and step.index >= self.queue_from * step.total:
            self.queue.put(embeddings[:ASSIGNING])
        return swapped_prediction(scores, targets, self.temperature)

    def count(self, batch: int) -> int:
        """Prototypes in use for a batch of this many samples on each process.

        Assignments use all prototypes alike, so more of them than samples have no meaning.
        """
        queue = 0 if self.queue is None else self.queue.rows.shape[1]
        samples, asked = batch * rank_and_world()[1] + queue, self.prototypes.out_features
        if self.given and asked > samples:
            raise UsageError(
                f"{asked} prototypes are more than the {samples} samples they are spread over (the batch, or "
                f"its part, and a queue of {queue}): pass --method.prototypes {samples} or less, or "
                f"--method.queue {queue + asked - samples} or more"
            )
        return min(asked, samples)

    def _frozen(self, step: Step) -> bool:
        return step.epoch < 1 if self.freeze is None else step.index < self.freeze

    def _targets(self, view: int, scores: Tensor, weight: Tensor) -> Tensor:
        batch = len(scores)
        if self.queue is not None and self.queue.full:
            scores = torch.cat([self.queue.share(view) @ weight.T, scores])
        return sinkhorn(scores, epsilon=self.epsilon, iterations=self.iterations)[-batch:]

    @torch.no_grad()
    def flush(self) -> None:
        """After the optimiser's step: the queue follows, frozen prototypes are what they were.

        Put back rather than left without gradient: a momentum or weight decay moves them all the same.
        """
        if self._kept is not None:
            self.prototypes.weight.copy_(self._kept)
            self._kept = None
        if self.queue is not None:
            self.queue.flush()
