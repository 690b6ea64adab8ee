"""What methods that learn masks share: a head, parts of turned samples, supervision, what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tacit.batch import Batch, Modality, Samples, Step
from tacit.data.source import Sample, Source
from tacit.encoders.card import card_of
from tacit.encoders.pyramid import pyramid_of
from tacit.errors import UsageError
from tacit.losses.segmentation import segmentation_loss
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.tasks.base import Network
from tacit.tasks.masks.segmenter import dense_logits

SSL4MIS = Recipe(
    optimizer="momentum",  # timm's sgd is Nesterov's
    lr=0.01,
    weight_decay=1e-4,
    batch_size=2,
    epochs=150,
    schedule="poly",
    source="SGD with momentum 0.9, lr 0.01 (1 - t/T)^0.9, weight decay 1e-4, 2 labelled and 2 unlabelled "
    "patches a step: the released benchmark SSL4MIS, whose 30,000 steps are 300 passes over 200 volumes; 150 "
    "passes are our choice",
)
IMAGES = Recipe(
    optimizer="adam",
    lr=1e-3,
    weight_decay=1e-4,
    batch_size=4,
    epochs=60,
    schedule="cosine 7/16",
    source="our choice: Adam, lr 1e-3, 4 labelled and 4 unlabelled images a step; the papers are about "
    "volumes",
)


class Views(NamedTuple):
    """All random choices of a step.

    labelled: (L, C, *patch) float32. target: (L, *patch) int64. unlabelled: (U, C, *patch) float32.
    rng: where noise is drawn from when a pass needs it, so that many noisy copies are never held at once; it
    is a function of seed and step. drawn: what a method has drawn besides, by its own names.
    """

    labelled: Tensor
    target: Tensor
    unlabelled: Tensor
    rng: Rng
    drawn: dict[str, Tensor]

    @property
    def both(self) -> Tensor:
        """(L + U, C, *patch), the labelled ones first."""
        return torch.cat([self.labelled, self.unlabelled])


class Segmentation(Method):
    """A network that gives each voxel or pixel a class: L = supervised + what is made of unlabelled samples.

    Supervised is 0.5 (cross-entropy + soft Dice) of the labelled patches. The network is an encoder that
    gives full-resolution maps (`forward_pyramid`) with a convolution of one voxel on them. As in the papers
    labelled and unlabelled patches pass through it as one batch, so that BatchNorm sees both.

    In volumes a patch is a random box; an image is seen whole.

    turn: whether a sample is turned by a random multiple of 90 degrees in the x-y plane and mirrored before.
    """

    modality: ClassVar[Modality | tuple[Modality, ...]] = ("volume", "image")
    learns = "mask"
    accumulates = False  # Dice and the means over confident voxels are ratios over the batch
    recipe = SSL4MIS
    default_encoder: ClassVar[str | Mapping[str, str]] = {"volume": "tacit/vnet", "image": "tacit/unet2d"}
    background: ClassVar[bool] = (
        True  # whether soft Dice counts the background, where there are more than 2 classes
    )

    head: nn.Module

    def __init__(self, encoder: nn.Module, *, turn: bool = True) -> None:
        super().__init__(encoder)
        pyramid_of(encoder)
        self.turn = turn

    def prepare(self, source: Source) -> None:
        """Put a head for the source's classes on the encoder."""
        if source.spec.target != "mask" or len(source.spec.classes) < 2:
            raise UsageError(
                f"{type(self).__name__} learns masks of two classes or more, and the data have none"
            )
        self.classes = len(source.spec.classes)
        self._convolution = nn.Conv3d if len(source.spec.shape) == 4 else nn.Conv2d
        self.head = self.make_head()

    @classmethod
    def recipe_for(cls, kind: str) -> Recipe:
        """The paper's for volumes; for images ours."""
        return IMAGES if kind == "image" else cls.recipe

    def make_head(self) -> nn.Module:
        """A convolution with a kernel of one voxel or pixel, from the finest maps to the classes."""
        return self._convolution(pyramid_of(self.encoder).pyramid_features[-1], self.classes, 1)

    def cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A random part of the turned sample, and of its mask if it is labelled."""
        return card_of(self.encoder).form.cut(sample, rng, turn=self.turn)

    def views(self, batch: Batch, rng: Rng, step: Step) -> Views:
        """The patches as they were cut."""
        labelled, unlabelled = batch.labelled, batch.unlabelled
        if labelled is None or labelled.target is None:
            raise UsageError(f"{type(self).__name__} learns from masks, and the batch has none")
        noise = rng("noise of", int(unlabelled.index[0]))  # parts and processes of a step have other samples
        drawn = self.draw(labelled, unlabelled, rng)
        return Views(labelled.data, labelled.target, unlabelled.data, noise, drawn)

    def draw(self, labelled: Samples, unlabelled: Samples, rng: Rng) -> dict[str, Tensor]:
        """What a method draws beyond the patches."""
        return {}

    def logits(self, x: Tensor) -> Tensor:
        """(B, C, *patch) -> (B, classes, *patch), by the network that is trained."""
        return dense_logits(Network(self.encoder, self.head), x)

    def supervised(self, logits: Tensor, views: Views) -> Tensor:
        """Of logits whose first rows are the labelled patches."""
        return segmentation_loss(logits[: len(views.labelled)], views.target, background=self.background)

    @property
    def network(self) -> Network:
        """The network that is evaluated, and that `finish` keeps."""
        return Network(self.encoder, self.head)
