"""What semi-supervised classifiers share: a head, weak and strong views, an averaged network to evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Batch, Step
from tacit.data.source import Source
from tacit.encoders.modes import still_statistics
from tacit.errors import UsageError
from tacit.methods.parts.averaged import Averaged
from tacit.methods.parts.warped import warped
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.views.warp import NATURAL_STRONG, NATURAL_WEAK, WEAK, Warp

CLASSIC = Recipe(
    optimizer="sgd",
    lr=0.03,
    weight_decay=5e-4,
    batch_size=64,
    epochs=200,
    schedule="cosine 7/16",
    source="SGD with Nesterov momentum 0.9, lr 0.03, weight decay 5e-4, 64 labelled images, "
    "lr cos(7 pi t / 16 T): FixMatch and the classic setting of the USB benchmark, which train 2^20 steps; "
    "200 passes over the unlabelled images are our choice",
)
View = Literal["weak", "strong"]


class Views(NamedTuple):
    """All random choices of a step.

    labelled: (L, C, S, S) weak views. target: (L,) int64.
    unlabelled: one (U, C, S, S) per entry of the method's `unlabelled_views`. index: (U,) positions.
    mixing: what a method that mixes samples has drawn, by its own names.
    """

    labelled: Tensor
    target: Tensor
    unlabelled: tuple[Tensor, ...]
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks of views
    mixing: dict[str, Tensor]


class SemiSupervised(Averaged):
    """A classifier on an encoder: L = supervised + what the method makes of unlabelled samples.

    A subclass says which views it wants of the unlabelled samples (`unlabelled_views`) and what it does
    with them (`unsupervised`). Labelled samples pass through the network first and on their own, so that
    a weight of 0 gives the bits of `supervised`.

    Batch statistics normalise while learning. BatchNorm's running statistics, by which a network is
    evaluated, follow weak views that are not mixed, because evaluation sees pictures like them: labelled ones
    in most methods, unlabelled ones where the authors' code lets them; strong and mixed views move none
    unless a method has no others. At the end they are estimated again on clean labelled pictures.
    """

    learns = "class"
    recipe = CLASSIC
    published: ClassVar[Mapping[str, Any]] = {"weak": NATURAL_WEAK, "strong": NATURAL_STRONG}
    unlabelled_views: ClassVar[tuple[View, ...]] = ()

    def __init__(
        self, encoder: nn.Module, *, weak: Warp = WEAK, strong: Warp | None = None, ema: float, dropout: float
    ) -> None:
        super().__init__(encoder, ema=ema)
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), not {dropout}")
        self.weak, self.strong, self.dropout = weak, strong, dropout

    def prepare(self, source: Source) -> None:
        """Put a classifier for the source's classes on the encoder."""
        self.classes = len(source.spec.classes) or int(source.labels.max()) + 1
        self.set_head(nn.Sequential(nn.Dropout(self.dropout), nn.Linear(self.num_features, self.classes)))

    def logits(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, classes), by the trained network."""
        return self.head(self.encoder(x))

    def still_logits(self, x: Tensor) -> Tensor:
        """The same for samples that move no running statistics."""
        with still_statistics(self, True):
            return self.logits(x)

    @torch.no_grad()
    def average_logits(self, x: Tensor) -> Tensor:
        """The same by the averaged network, in the mode that this module is in; no gradient.

        Its running statistics stay an average of the trained network's.
        """
        if self.average is None:
            raise UsageError(f"{type(self).__name__} needs an averaged network: set ema above 0")
        encoder, head = self.average
        with still_statistics(self.average, True):
            return head(encoder(x))

    def views(self, batch: Batch, rng: Rng, step: Step) -> Views:
        """Weak views of the labelled samples; of the unlabelled ones what the method asks for."""
        if batch.labelled is None or batch.labelled.target is None:
            raise UsageError(f"{type(self).__name__} learns from labels, and the batch has none")
        labelled = warped(batch.labelled, rng("labelled"), self.weak, self.encoder)
        unlabelled = tuple(
            warped(batch.unlabelled, rng(kind, i), self._warp(kind), self.encoder)
            for i, kind in enumerate(self.unlabelled_views)
        )
        mixing = self.draw_mixing(batch, rng("mixing"))
        return Views(labelled, batch.labelled.target, unlabelled, batch.unlabelled.index, mixing)

    def draw_mixing(self, batch: Batch, rng: Rng) -> dict[str, Tensor]:
        """Weights and partners, for methods that mix samples."""
        return {}

    def _warp(self, kind: View) -> Warp:
        if kind == "weak":
            return self.weak
        assert self.strong is not None
        return self.strong

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """The supervised term and the method's own, weighted."""
        supervised = self.supervised(views)
        return {"supervised": supervised, **self.unsupervised(views, step)}

    def supervised(self, views: Views) -> Tensor:
        """Cross-entropy of the labelled samples, mean over the batch, in nats."""
        return F.cross_entropy(self.logits(views.labelled), views.target)

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Named, weighted terms from the unlabelled samples."""
        raise NotImplementedError
