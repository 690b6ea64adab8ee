"""How an encoder sees images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from tacit.batch import Modality, Samples
from tacit.data.form import Form
from tacit.data.image.statistics import channel_statistics
from tacit.data.source import Source, Spec
from tacit.errors import UsageError
from tacit.views.image import centre_view

LARGEST_VIEW = 224  # pixels, where neither the user nor the encoder asks for a size


def store_limit(size: int) -> int:
    """Side of the stored images for an encoder that sees `size` pixels: 8/7 of it, as 256 is to 224."""
    return round(size * 8 / 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm(Form):
    """Squares of `size` pixels, cut out of stored ones.

    size: side in pixels of what the encoder sees. stored: side to which files are brought before. white: of
    images with more than 8 bits, the value that becomes 1.
    """

    modality: ClassVar[Modality] = "image"
    usual: ClassVar[tuple[float, float]] = (0.5, 0.5)  # maps [0, 1] to [-1, 1]
    channels_last: ClassVar[bool] = True  # a step takes 0.67 of the time (76 against 113 ms, tacit/convnet)

    size: int
    stored: int = 0
    white: int = 0

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
    def measured(cls, source: Source) -> dict[str, Any]:
        """Mean and standard deviation of some images."""
        mean, std = channel_statistics(source)
        return {"mean": mean, "std": std}

    def settled(self, source: Source) -> Self:
        """With the stored side and the white of the source."""
        if self.stored:
            return self
        return replace(self, stored=source.spec.shape[-1], white=source.spec.white)

    @property
    def lighter(self) -> str | None:
        """Half the size, where it is 64 pixels or more."""
        return f"--size {self.size // 2}" if self.size >= 64 else None

    def still(self, samples: Samples) -> Tensor:
        """The centre square."""
        true_size = samples.extra["true_size"]
        return centre_view(samples.data, true_size, size=self.size, mean=self.mean, std=self.std)

    @staticmethod
    def raw(samples: Samples, size: int) -> Tensor:
        """Pixels of the centre square, of at most `size` a side, in [0, 1]."""
        channels, side = samples.data.shape[1], min(size, samples.data.shape[-1])
        form = ImageForm(channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels, size=side)
        return form.still(samples).flatten(1)


FORM = ImageForm
