"""A network of encoder and head with an averaged copy, either of which can be kept."""

from __future__ import annotations

import torch
from torch import nn

from tacit.batch import Step
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.methods.base import Method
from tacit.methods.parts.teacher import follow, follow_buffers, frozen_copy, momentum_at
from tacit.tasks.base import Network


class Averaged(Method):
    """A method that trains an encoder with one head, and can average both.

    Where it averages (`ema` above 0), theta' <- d theta' + (1 - d) theta after each step, for parameters and
    BatchNorm's statistics alike, with the d of `momentum_at`. At the end the averaged and the trained network
    are graded on held-out labels and the better one is kept; without such labels the average is kept.

    A subclass calls `set_head` in `prepare`.
    """

    head: nn.Module

    def __init__(self, encoder: nn.Module, *, ema: float) -> None:
        super().__init__(encoder)
        if not 0 <= ema < 1:
            raise UsageError(f"ema must lie in [0, 1), not {ema}")
        self.ema = ema
        self.average: nn.ModuleList | None = None

    def set_head(self, head: nn.Module) -> None:
        """Complete the network with its head, and begin the average, if there is one."""
        self.head = head
        if self.ema:
            self.average = frozen_copy(self._network)  # type: ignore[assignment]  # a copy has the type
        self.kept = self.candidates[0]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The average first, if there is one."""
        return ("trained",) if self.average is None else ("averaged", "trained")

    @property
    def network(self) -> Network:
        """Encoder and head of the network that is evaluated."""
        averaged = self.average is not None and self.kept == "averaged"
        encoder, head = self.average if self.average is not None and averaged else self._network
        return Network(encoder, head)

    @property
    def _network(self) -> nn.ModuleList:
        return nn.ModuleList([self.encoder, self.head])

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """The average follows."""
        if self.average is None:
            return
        momentum = momentum_at(step, self.ema)
        follow(self.average, self._network, momentum)
        follow_buffers(self.average, self._network, momentum)

    def finish(self, source: Source) -> None:
        """The network that is evaluated becomes the trained one."""
        if self.average is not None and self.kept == "averaged":
            self._network.load_state_dict(self.average.state_dict())
