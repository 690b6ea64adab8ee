"""What methods that learn values share: a head that knows their unit, weak views, an averaged network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Batch, Step
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.methods.parts.averaged import Averaged
from tacit.methods.parts.warped import warped
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.tasks.values.regressor import ValueHead
from tacit.views.warp import WEAK, Warp

ROBUST = Recipe(
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    batch_size=64,
    epochs=100,
    schedule="cosine 7/16",
    clip=1.0,
    source="our choice, on numbers read off digits, one seed: AdamW, lr 0.001, weight decay 0.01, "
    "gradients clipped to 1, 64 labelled images. The classifiers' SGD at 0.03 is 2 to 6 points of R2 "
    "better on tacit/convnet, but diverges on timm/resnet18 and, clipped, is 3 to 12 points worse there",
)


class Views(NamedTuple):
    """All random choices of a step.

    labelled: (L, C, S, S) weak views. target: (L,) float32 in the unit of the values.
    """

    labelled: Tensor
    target: Tensor


class Regression(Averaged):
    """A network that gives each sample a number: L = supervised + what the method makes of other samples.

    The network learns the standardised value, (value - mean) / standard deviation of the values that are
    learned from, so that learning rates do not depend on the unit. Both are in the head's state.

    Supervised is the mean squared error, because the score is R2: no other loss has its minimum where R2 has
    its maximum (our choice; a robust loss would forgive the errors that R2 counts most).
    """

    learns = "value"
    recipe = ROBUST

    head: ValueHead

    def __init__(self, encoder: nn.Module, *, weak: Warp = WEAK, ema: float) -> None:
        super().__init__(encoder, ema=ema)
        self.weak = weak

    def prepare(self, source: Source) -> None:
        """Put a head on the encoder that knows mean and standard deviation of the source's values.

        source: with the values that are learned from, and no others.
        """
        known = np.empty(0) if source.values is None else source.values[source.labelled]
        if len(known) < 2 or np.ptp(known) == 0:
            raise UsageError(
                f"{type(self).__name__} learns from two different values or more, and the data have "
                f"{len(np.unique(known))}: name a CSV with --values"
            )
        linear = nn.Linear(self.num_features, 1)
        self.set_head(ValueHead(linear, mean=float(known.mean()), scale=float(known.std())))

    def standardised(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B,) standardised values, by the trained network."""
        return self.head.standardised(self.encoder(x))

    def views(self, batch: Batch, rng: Rng, step: Step) -> Views:
        """Weak views of the labelled samples."""
        if batch.labelled is None or batch.labelled.target is None:
            raise UsageError(f"{type(self).__name__} learns from values, and the batch has none")
        labelled = warped(batch.labelled, rng("labelled"), self.weak, self.encoder)
        return Views(labelled, batch.labelled.target)

    def supervised(self, views: Views) -> Tensor:
        """Mean squared error of the standardised values; 1 is what their mean scores."""
        return F.mse_loss(self.standardised(views.labelled), self.head.standardise(views.target))
