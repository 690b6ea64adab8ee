"""From a recipe to timm's optimiser and schedule."""

from __future__ import annotations

import math

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from tacit.methods.recipe import Recipe


def learning_rate(recipe: Recipe) -> float:
    """The peak rate: the recipe's base rate, scaled by its rule with the global batch."""
    factor = {"none": 1.0, "linear": recipe.batch_size / 256, "sqrt": math.sqrt(recipe.batch_size)}
    return recipe.lr * factor[recipe.lr_scaling]


_FUSED = ("sgd", "momentum", "adam", "adamw")


def make_optimizer(module: nn.Module, recipe: Recipe) -> Optimizer:
    """timm's optimiser over the parameters that want a gradient; no decay on biases and normalisation.

    torch's own optimisers update all parameters in one kernel, which takes less than half of the time.
    """
    fused = {"fused": True} if recipe.optimizer in _FUSED else {}
    return create_optimizer_v2(
        module,
        opt=recipe.optimizer,
        lr=learning_rate(recipe),
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        **fused,
    )


class _SevenSixteenths(Scheduler):
    """lr cos(7 pi t / (16 T)) (Sohn et al., 2020): timm has half a period of the raised cosine only."""

    def __init__(self, optimizer: Optimizer, total: int, warmup: int) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self.total, self.warmup = total, warmup

    def _get_lr(self, t: int) -> list[float]:
        if t < self.warmup:
            return [value * t / self.warmup for value in self.base_values]
        done = (t - self.warmup) / max(1, self.total - self.warmup)
        return [value * math.cos(7 * math.pi / 16 * done) for value in self.base_values]


def make_schedule(optimizer: Optimizer, recipe: Recipe, total: int) -> Scheduler:
    """timm's schedule over `total` steps. `step_update(n)` sets the rate of step n: it has no state."""
    warmup = round(recipe.warmup * total)
    common = {"warmup_t": warmup, "warmup_lr_init": 0.0, "warmup_prefix": True, "t_in_epochs": False}
    if recipe.schedule == "cosine 7/16":
        return _SevenSixteenths(optimizer, total, warmup)
    if recipe.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=total + 1, decay_rate=1.0, **common)
    if recipe.schedule == "steps":
        # timm's counts its steps from 1
        marks = [warmup + round((total - warmup) * share / 12) + 1 for share in (5, 10)]
        return MultiStepLRScheduler(optimizer, decay_t=marks, decay_rate=0.1, **common)
    falling = {"t_initial": max(1, total - warmup), "lr_min": 0.0, **common}
    if recipe.schedule == "poly":
        return PolyLRScheduler(optimizer, power=0.9, **falling)
    return CosineLRScheduler(optimizer, **falling)
