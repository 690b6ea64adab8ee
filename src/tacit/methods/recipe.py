"""How a method is trained, as data: optimiser, learning rate, schedule, batch, epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tacit.errors import UsageError, unknown

Schedule = Literal["cosine", "cosine 7/16", "poly", "steps", "constant"]
Scaling = Literal["linear", "sqrt", "none"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The training recipe of a paper; every field can be overridden for one run.

    optimizer: a name that timm knows, such as lars, sgd, adamw.
    lr: base learning rate; `lr_scaling` makes the rate of the run from it and the global batch B:
        linear lr * B / 256, sqrt lr * sqrt(B), none lr.
    weight_decay: not applied to biases and normalisation layers.
    schedule: cosine falls to 0 as (1 + cos(pi t)) / 2, cosine 7/16 to a fifth as cos(7 pi t / 16), for t from
        0 to 1 after the warm-up; poly to 0 as (1 - t)^0.9; steps to a tenth at
        5/12 and to a hundredth at 10/12; constant does not fall.
    warmup: share of all steps in which the rate rises linearly from 0.
    batch_size: the global batch: over all processes, before accumulation.
    clip: largest norm of the gradient; None does not clip.
    mu: unlabelled samples per labelled one, for methods that learn labels; `batch_size` counts the
        unlabelled ones.
    source: where the values come from.
    """

    optimizer: str
    lr: float
    batch_size: int
    epochs: int
    weight_decay: float = 0.0
    momentum: float = 0.9
    lr_scaling: Scaling = "none"
    schedule: Schedule = "cosine"
    warmup: float = 0.0
    clip: float | None = None
    mu: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("schedule", get_args(Schedule)), ("lr_scaling", get_args(Scaling))):
            if getattr(self, name) not in allowed:
                raise unknown(name, str(getattr(self, name)), allowed)
        for name in ("lr", "batch_size", "epochs", "mu"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")
        for name, low, high in (
            ("weight_decay", 0.0, float("inf")),
            ("warmup", 0.0, 0.999),
            ("momentum", 0.0, 0.9999),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} must lie in [{low:g}, {high:g}], not {getattr(self, name)}")
        if self.clip is not None and self.clip <= 0:
            raise UsageError(f"clip must be above 0, not {self.clip}")
