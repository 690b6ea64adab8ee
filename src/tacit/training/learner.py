"""The only LightningModule: it turns a method and a recipe into steps."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from tacit.batch import Batch, Step
from tacit.data.source import Source
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.training.checkpoint import load_optimizer
from tacit.training.loader import Beside, Plan, StepData, StepSampler, Stream, step_loader
from tacit.training.optimise import make_optimizer, make_schedule
from tacit.training.pulse import Pulse


class Learner(LightningModule):
    """Trains a method from optimiser step `start` to the end of the plan.

    Lightning brings devices, precision, distribution, accumulation and clipping. The clock is ours:
    a step's samples, views and learning rate are functions of its number, so that beginning in the
    middle is the same as never having stopped. To Lightning the whole run is one epoch.

    step: the optimiser step under way. pulse: what is not finite, or huge.
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        plan: Plan,
        source: Source,
        rng: Rng,
        *,
        start: int = 0,
        optimizer_state: dict[str, Any] | None = None,
        pulse: Pulse | None = None,
        workers: int = 0,
        labelled: Stream | None = None,
        images: Beside | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.recipe = recipe
        self.plan = plan
        self.source = source
        self.rng = rng
        self.start = start
        self.workers = workers
        self.labelled = labelled
        self.images = images
        self.index = start
        self.pulse = pulse or Pulse()
        self._optimizer_state = optimizer_state
        self._sums: dict[str, Tensor] = {}
        self._parts = 0

    @property
    def step(self) -> Step:
        """The step under way."""
        return self.plan.step(self.index)

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.index >= self.plan.total

    def train_dataloader(self) -> DataLoader[Batch]:
        """The samples of the steps that are left, for this process."""
        overrides = type(self.method).cut is not Method.cut
        cut = self.method.cut if overrides else None
        data = StepData(self.source, self.rng, cut, self.labelled, self.images)
        sampler = StepSampler(self.plan, self.rng, self.start, self.global_rank, data.streams)
        return step_loader(data, sampler, workers=self.workers, pin_memory=self.device.type == "cuda")

    def configure_optimizers(self) -> Optimizer:
        """timm's optimiser, as it was if the run is resumed.

        Raises:
            TacitError: it was another one.
        """
        optimizer = make_optimizer(self.method, self.recipe)
        if self._optimizer_state is not None:
            load_optimizer(optimizer, self._optimizer_state, rests=self.method.rests)
        self._schedule = make_schedule(optimizer, self.recipe, self.plan.total)
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set what is a function of the step: learning rate, dropout's randomness, the epoch's start."""
        step, part = self.step, batch_idx % self.plan.accumulate
        torch.manual_seed(self.rng("dropout", step.index, part, self.global_rank).seed)
        if part == 0:
            self._schedule.step_update(step.index)
            if step.index % self.plan.steps_per_epoch == 0:
                self.method.on_epoch(self.source, step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Views without gradient, losses with; their sum is what is minimised."""
        step = self.step
        with torch.no_grad():
            views = self.method.views(batch, self.rng("views", step.index), step)
        losses = self.method.losses(views, step)
        total = torch.stack(list(losses.values())).sum()
        self._remember({"loss": total, **losses, **self.method.notes})
        self.pulse.loss(total)
        self.method.notes.clear()
        return total

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """The whole gradient, before it is clipped."""
        self.pulse.gradient(self.method.parameters())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Called once per step, after its last part; the method's own updates follow."""
        super().optimizer_step(*args, **kwargs)
        self.method.after_step(self.step)
        self.index += 1

    def _remember(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().float()
        self._parts += 1

    def take_means(self) -> dict[str, float]:
        """Means of all losses and notes since the last call. The only place that waits for the device."""
        if not self._parts:
            return {}
        names = list(self._sums)
        means = (torch.stack([self._sums[name] for name in names]) / self._parts).tolist()
        self._sums.clear()
        self._parts = 0
        return dict(zip(names, means, strict=True))
