"""From a recipe to timm's optimiser and schedule."""

from __future__ import annotations

import math

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from tacit.methods.recipe import Recipe


def learning_rate(recipe: Recipe) -> float:
    """The peak rate: the recipe's base rate, scaled by its rule with the global batch."""
    factor = {"none": 1.0, "linear": recipe.batch_size / 256, "sqrt": math.sqrt(recipe.batch_size)}
    return recipe.lr * factor[recipe.lr_scaling]


def make_optimizer(module: nn.Module, recipe: Recipe) -> Optimizer:
    """timm's optimiser over the parameters that want a gradient; no decay on biases and normalisation."""
    return create_optimizer_v2(
        module,
        opt=recipe.optimizer,
        lr=learning_rate(recipe),
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
    )


def make_schedule(optimizer: Optimizer, recipe: Recipe, total: int) -> Scheduler:
    """timm's schedule over `total` steps. `step_update(n)` sets the rate of step n: it has no state."""
    warmup = round(recipe.warmup * total)
    common = {"warmup_t": warmup, "warmup_lr_init": 0.0, "warmup_prefix": True, "t_in_epochs": False}
    if recipe.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=total + 1, decay_rate=1.0, **common)
    return CosineLRScheduler(optimizer, t_initial=max(1, total - warmup), lr_min=0.0, **common)
