"""How an encoder sees images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from tacit.batch import Modality, Samples
from tacit.checks import check_whole
from tacit.data.form import Form
from tacit.data.image.canvas import PictureCanvas
from tacit.data.image.mask_store import nearest
from tacit.data.image.statistics import channel_statistics
from tacit.data.options import LARGEST_VIEW, store_limit
from tacit.data.source import UNLABELLED, Sample, Source, Spec, rooted
from tacit.errors import UsageError
from tacit.views.image import centre_view, whole_view

_LONGEST = 16_384  # pixels
_BRIGHTEST = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm(Form):
    """Squares of `size` pixels, cut out of stored ones.

    size: side in pixels of what the encoder sees. stored: side to which files are brought before. white: of
    images with more than 8 bits, the value that becomes 1.
    """

    modality: ClassVar[Modality] = "image"
    usual: ClassVar[tuple[float, float]] = (0.5, 0.5)  # maps [0, 1] to [-1, 1]
    channels_last: ClassVar[bool] = True  # a step takes 0.67 of the time (76 against 113 ms, tacit/convnet)

    words: ClassVar[tuple[str, ...]] = ("channels", "size")
    pretraining: ClassVar[str] = "dcl"
    light: ClassVar[str] = "tacit/convnet"
    light_dense: ClassVar[str] = "tacit/unet2d?width=8"

    size: int
    stored: int = 0
    white: int = 0

    def check_fields(self) -> None:
        """The sides and the white, too."""
        super(ImageForm, self).check_fields()
        check_whole("size", self.size, 1, _LONGEST)
        check_whole("stored", self.stored, 0, _LONGEST)
        self.check_sample("size", self.size, self.size)
        self.check_sample("stored", self.stored, self.stored)
        check_whole("white", self.white, 0, _BRIGHTEST)

    @property
    def sides(self) -> dict[str, Any]:
        """`size`."""
        return {"size": self.size}

    @classmethod
    def sides_of(cls, spec: Spec, side: int | None = None) -> dict[str, Any]:
        """`size`: what is asked for, or the images' own side, at most 224."""
        return {"size": side or min(spec.shape[-1], LARGEST_VIEW)}

    @property
    def opening(self) -> dict[str, Any]:
        """Channels, stored side and white."""
        return {
            "channels": self.channels,
            "size": self.stored or None,
            "max_size": store_limit(self.size),
            "white": self.white or None,
        }

    def opening_with(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The same, with the channels that are asked for. The size may not be another."""
        if asked["size"] not in (None, self.size):
            raise UsageError(
                f"--size {asked['size']} does not fit the encoder, which sees {self.size} pixels"
            )
        others = {name: asked[name] for name in ("window", "spacing", "patch")}  # refused if given
        return {**self.opening, **others, "channels": asked["channels"] or self.channels}

    @classmethod
    def refuse(cls, asked: Mapping[str, Any]) -> None:
        """Nothing: `open_source` refuses what is for volumes."""

    @classmethod
    def lacks(cls, sample: Sample) -> str:
        """Images are uint8 and square, and say their height and width before."""
        if sample.data.dtype != torch.uint8:
            return f"of {sample.data.dtype}: data of images are torch.uint8, (C, S, S)"
        if sample.data.ndim != 3 or sample.data.shape[1] != sample.data.shape[2]:
            return f"of shape {tuple(sample.data.shape)}: data of images are square, (C, S, S)"
        if tuple(getattr(sample.extra.get("true_size"), "shape", ())) != (2,):
            return "without extra['true_size'], a tensor of height and width before they were made square"
        return ""

    @classmethod
    def measured(cls, source: Source) -> dict[str, Any]:
        """Mean and standard deviation of some images."""
        mean, std = channel_statistics(source)
        return {"mean": mean, "std": std}

    def settled(self, source: Source) -> Self:
        """With the stored side and the white of the source."""
        if self.stored:
            return self
        return replace(self, stored=source.spec.shape[-1], white=source.spec.white)

    def fits(self, divisor: int) -> None:
        """The size must be a multiple."""
        if self.size % divisor:
            near = max(1, round(self.size / divisor)) * divisor
            raise UsageError(
                f"the encoder takes images with sides that are multiples of {divisor}, not {self.size}: pass "
                f"--size {near}"
            )

    @property
    def lighter(self) -> str | None:
        """Half the size, where it is 64 pixels or more."""
        return f"--size {self.size // 2}" if self.size >= 64 else None

    def still(self, samples: Samples) -> Tensor:
        """The centre square."""
        true_size = samples.extra["true_size"]
        return centre_view(samples.data, true_size, size=self.size, mean=self.mean, std=self.std)

    def cut(self, sample: Sample, rng: np.random.Generator, *, turn: bool) -> Sample:
        """The whole stored square with its mask, in one of its eight turns and mirrorings.

        The image is resampled with antialiasing, the mask takes the class at each pixel's centre.
        """
        data = whole_view(sample.data[None], size=self.size, mean=self.mean, std=self.std)[0]
        target = None
        if sample.target is not None and sample.label != UNLABELLED:
            target = torch.from_numpy(nearest(sample.target.numpy(), self.size, self.size))
        if turn:
            drawn = int(rng.integers(8))
            data = _turned(data, drawn)
            target = None if target is None else _turned(target, drawn)
        return Sample(data, sample.index, sample.label, sample.name, target)

    def canvas(self, source: Source, position: int) -> PictureCanvas:
        """The picture in its own size; of images without masks too."""
        return PictureCanvas(*rooted(source, position), self)

    @staticmethod
    def raw(samples: Samples, size: int) -> Tensor:
        """Pixels of the centre square, of at most `size` a side, in [0, 1]."""
        channels, side = samples.data.shape[1], min(size, samples.data.shape[-1])
        form = ImageForm(channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels, size=side)
        return form.still(samples).flatten(1)


def _turned(image: Tensor, number: int) -> Tensor:
    """(..., S, S) by number % 4 quarter turns, then mirrored left to right if the number is 4 or more."""
    turned = torch.rot90(image, number % 4, (-2, -1))
    return (turned.flip(-1) if number >= 4 else turned).contiguous()


FORM = ImageForm
