"""Phases of a run: which of a method's tasks an epoch has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

from tacit.batch import Step
from tacit.errors import UsageError, unknown

Order = Literal["sequential", "alternate"]


class Phases:
    """Phases 0, 1, ... of a run, whole epochs each, a function of the step alone.

    order: sequential gives each phase one share of the epochs, rounded to whole ones, at least one where the
        share is above 0; alternate goes through all phases again and again, as many epochs as `rounds` says.
    shares: of the epochs, one per phase. rounds: epochs of each phase in a round.
    """

    def __init__(self, order: Order, shares: Sequence[float], rounds: Sequence[int]) -> None:
        if order not in get_args(Order):
            raise unknown("order of phases", str(order), get_args(Order))
        used, name = (shares, "shares") if order == "sequential" else (rounds, "rounds")
        if len(shares) != len(rounds) or min(used) < 0 or not sum(used) > 0:
            raise UsageError(
                f"{name} must be {len(rounds)} numbers of at least 0, one above, not {list(used)}"
            )
        self.order, self.shares, self.rounds = order, tuple(shares), tuple(rounds)
        self.table = lru_cache(self._table)

    def phase(self, step: Step) -> int:
        """The phase of a step's epoch.

        Raises:
            UsageError: the run has too few epochs for all its phases.
        """
        return self.table(step.epochs)[step.epoch]

    def begins(self, step: Step) -> bool:
        """Whether the step's epoch is the first of a phase, or of its part in a round."""
        return step.epoch == 0 or self.table(step.epochs)[step.epoch - 1] != self.phase(step)

    def within(self, step: Step) -> Step:
        """The step counted in its phase alone, as if there were no other."""
        table, phase = self.table(step.epochs), self.phase(step)
        length = step.total // step.epochs
        epoch, epochs = table[: step.epoch].count(phase), table.count(phase)
        return Step(epoch * length + step.index - step.epoch * length, epochs * length, epoch, epochs)

    def _table(self, epochs: int) -> tuple[int, ...]:
        """The phase of each epoch."""
        if self.order == "alternate":
            one = [phase for phase, count in enumerate(self.rounds) for _ in range(count)]
            if epochs < len(one):
                raise UsageError(
                    f"one round of phases takes {len(one)} epochs: pass --epochs {len(one)} or more"
                )
            return tuple(one[i % len(one)] for i in range(epochs))
        wanted = sum(share > 0 for share in self.shares)
        if epochs < wanted:
            raise UsageError(
                f"{wanted} phases take an epoch each at least: pass --epochs {wanted} or more, or give a "
                "phase a share of 0"
            )
        return tuple(self._sequence(epochs, wanted))

    def _sequence(self, epochs: int, left: int) -> list[int]:
        table: list[int] = []
        done = 0.0
        for phase, share in enumerate(self.shares):
            done += share
            if share > 0:
                left -= 1
                end = max(round(epochs * done / sum(self.shares)), len(table) + 1)
                table += [phase] * (min(end, epochs - left) - len(table))
        return table
