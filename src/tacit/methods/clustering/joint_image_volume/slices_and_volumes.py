"""What a method looks at that learns from slices, images and whole volumes: their views and embeddings."""

from __future__ import annotations

from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tacit.batch import Batch, Samples
from tacit.data.image.form import ImageForm
from tacit.data.source import Sample, Source
from tacit.data.volume.form import VolumeForm
from tacit.data.volume.volume import VolumeSample
from tacit.encoders.card import card_of
from tacit.encoders.heads import mlp
from tacit.encoders.zoo import fixed_size
from tacit.errors import UsageError
from tacit.losses.negatives import unit_rows
from tacit.methods.base import Method
from tacit.methods.parts.rows import rows_of
from tacit.rng import Rng
from tacit.views.colour import Normal
from tacit.views.image import Augment
from tacit.views.multicrop import multi_crop
from tacit.views.slices import draw_slices, slice_images
from tacit.views.volume_transforms import VolumeChanges, two_views

Place = Literal["centre", "random"]
_PARTS = ("image", "pyramid", "to_tokens", "embed_slices", "join")


class ImageViews(NamedTuple):
    """Crops of M slices and images.

    crops: (M, C, s, s) float32 each, normalised, the two large ones first. rows: (M,) int64, numbers of the
        slices and images among all there are.
    """

    crops: tuple[Tensor, ...]
    rows: Tensor


class VolumeViews(NamedTuple):
    """Two views of B volumes.

    first, second: (B, C, X, Y, N) float32, normalised. rows: (B,) int64, numbers of the volumes among all.
    mask: (B, N) bool, which slices are to be hidden, or None.
    """

    first: Tensor
    second: Tensor
    rows: Tensor
    mask: Tensor | None = None


class SlicesAndVolumes(Method):
    """Crops of slices, and of images beside them, and differently changed volumes, for a slice encoder.

    images: a second source, of images, if there is one; set before `prepare`. A batch has some of them
        `beside`, numbered by pass over the images x their count + position.
    """

    modality = "volume"
    beside = "image"
    default_encoder = "tacit/slices?image=timm/resnet50"
    rests = True

    row: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int,
        hidden: int,
        crop: Place,
        slices_per_volume: int,
        augment: Augment,
        small: int,
        small_size: float,
        small_scale: tuple[float, float],
        changes: VolumeChanges,
    ) -> None:
        if not all(hasattr(encoder, part) for part in _PARTS):
            raise UsageError(
                f"joint-image-volume learns an encoder of slices, and {type(encoder).__name__} is not one: "
                "pass --encoder 'tacit/slices?image=timm/resnet50', or make one with SliceEncoder(image)"
            )
        super().__init__(encoder)
        image = card_of(self.joint.image)
        if small and small_size != 1 and (fixed := fixed_size(image.spec)):
            raise UsageError(
                f"the image encoder sees {fixed} pixels only: pass --method.small 0 or --method.small_size 1"
            )
        if slices_per_volume < 1:
            raise UsageError(f"slices_per_volume must be at least 1, not {slices_per_volume}")
        self.crop, self.slices_per_volume = crop, slices_per_volume
        self.beside_each = slices_per_volume
        self.augment, self.changes = augment, changes
        self.small, self.small_size, self.small_scale = small, small_size, small_scale
        self.project = mlp([image.num_features, hidden, projection])

    @property
    def joint(self) -> Any:
        """The slice encoder."""
        return self.encoder

    @property
    def patch(self) -> tuple[int, ...]:
        """Sides (X, Y, N) of what the encoder sees."""
        return VolumeForm.of(card_of(self.encoder).form).patch

    def prepare(self, source: Source) -> None:
        """Number the volumes and slices."""
        self.volumes, self.slices = len(source), source.spec.shape[-1]
        # a batch names samples by their positions in the source that this one is a part of
        self.register_buffer("row", rows_of(source), persistent=False)

    def cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The encoder's patch of a volume, with zeros around where the volume is smaller."""
        assert isinstance(sample, VolumeSample)
        start = []
        for side, patch in zip(sample.volume.shape, self.patch, strict=True):
            room = side - patch
            start.append(int(rng.integers(room + 1)) if self.crop == "random" and room > 0 else room // 2)
        return Sample(sample.volume.read(start, self.patch), sample.index, sample.label, sample.name)

    def volume_views(self, volumes: Samples, rng: Rng) -> VolumeViews:
        """Two views of each volume."""
        form = card_of(self.encoder).form
        normal = Normal.of(form.mean, form.std, volumes.data.shape[1])
        mean, std = (volumes.data.new_tensor(numbers)[:, None, None, None] for numbers in normal)
        views = two_views(volumes.data, volumes.index, rng("volumes"), self.changes)
        first, second = ((view - mean) / std for view in views)
        return VolumeViews(first, second, self.row[volumes.index])

    def image_views(self, batch: Batch, rng: Rng) -> ImageViews:
        """Crops of some slices of each volume, and of the images beside them."""
        volumes = batch.unlabelled
        slices = volumes.data.shape[-1]
        which = draw_slices(volumes.index, rng("slices"), min(self.slices_per_volume, slices), slices)
        views = self.slice_views(volumes, which, rng, self.small)
        if batch.beside is None:
            return views
        beside = self.beside_views(batch.beside, rng, self.small)
        crops = tuple(torch.cat(pair) for pair in zip(views.crops, beside.crops, strict=True))
        return ImageViews(crops, torch.cat([views.rows, beside.rows]))

    def slice_views(self, volumes: Samples, which: Tensor, rng: Rng, small: int) -> ImageViews:
        """Crops of these slices, (B, k), of each volume."""
        slices = volumes.data.shape[-1]
        images, true_size = slice_images(volumes.data, which)
        number = (volumes.index[:, None] * slices + which).flatten()
        rows = (self.row[volumes.index][:, None] * slices + which).flatten()
        return ImageViews(self._crops(images, true_size, number, rng("slice"), small), rows)

    def beside_views(self, images: Samples, rng: Rng, small: int) -> ImageViews:
        """Crops of images, whose numbers come after those of all slices."""
        own, channels = images.data.shape[1], card_of(self.encoder).channels
        if own != channels:
            raise UsageError(
                f"the images beside the volumes have {own} channel(s), the volumes {channels}: "
                "give both as many"
            )
        count = 1 if self.images is None else len(self.images)
        rows = self.volumes * self.slices + images.index % count
        crops = self._crops(images.data, images.extra["true_size"], images.index, rng("beside"), small)
        return ImageViews(crops, rows)

    def _crops(
        self, images: Tensor, true_size: Tensor, index: Tensor, rng: Rng, small: int
    ) -> tuple[Tensor, ...]:
        form = ImageForm.of(card_of(self.joint.image).form)
        crops = multi_crop(
            images,
            true_size,
            index,
            rng,
            size=form.size,
            augment=self.augment,
            mean=form.mean,
            std=form.std,
            small=small,
            small_size=self.small_size,
            small_scale=self.small_scale,
        )
        return (*crops.large, *crops.small)

    def embed_crops(self, views: ImageViews) -> list[Tensor]:
        """(M, D) float32 unit vectors of each crop; crops of one size pass through the encoder together."""
        groups = (views.crops[:2], views.crops[2:])
        features = [self.joint.image(torch.cat(group)) for group in groups if group]
        (unit,) = unit_rows(self.project(torch.cat(features)))
        return list(unit.split([len(crop) for crop in chain(*groups)]))

    def embed_views(self, views: VolumeViews) -> list[Tensor]:
        """(B, d) float32 unit vectors Z of both views, whose slices share BatchNorm's statistics."""
        return list(self.encoder(torch.cat([views.first, views.second])).float().chunk(2))
