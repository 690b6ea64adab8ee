"""A picture in its own size."""

from __future__ import annotations

import colorsys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn import functional as F

from tacit.data.canvas import OVERLAP, Canvas, Predict
from tacit.data.image.masks import MaskedImages
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.files import replacing
from tacit.views.image import whole_view

if TYPE_CHECKING:
    from tacit.data.image.form import ImageForm


class PictureCanvas(Canvas):
    """A picture of its own height and width, seen whole, as a square; masks are written as palette PNGs."""

    whole = True
    ending = ".png"
    unit = "px"

    def __init__(self, source: Source, position: int, form: ImageForm) -> None:
        """source: of images, not a part of another. form: how an encoder sees them."""
        self.source, self.position, self.form = source, position, form
        self.name = source.names[position]
        root: Path | None = getattr(source, "root", None)
        self.origin = None if root is None else root / self.name

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels, upright as the EXIF orientation says."""
        height, width = self.source[self.position].extra["true_size"].int().tolist()
        return height, width

    @property
    def spacing(self) -> None:
        """Unknown."""
        return

    @property
    def element(self) -> float:
        """1 pixel."""
        return 1.0

    def mask(self) -> np.ndarray:
        """(H, W) int64, from the file of the mask."""
        if not isinstance(self.source, MaskedImages):
            raise UsageError(f"{self.name} has no mask")
        return self.source.read_mask(self.position)

    @torch.inference_mode()
    def predict(self, predict: Predict, device: torch.device | str, overlap: float = OVERLAP) -> Tensor:
        """Probabilities of the whole picture as a square, stretched bilinearly to (classes, H, W)."""
        images = self.source[self.position].data[None].to(device)
        form = self.form
        square = predict(whole_view(images, size=form.size, mean=form.mean, std=form.std))
        full = F.interpolate(square.float(), self.shape, mode="bilinear", align_corners=False)
        return full[0].cpu()

    def windows(self, overlap: float = OVERLAP) -> int:
        """One."""
        return 1

    def write(self, mask: np.ndarray, path: Path) -> None:
        """A PNG of one channel whose values are the classes, with a palette that shows them in colours."""
        if mask.shape != self.shape:
            raise UsageError(f"the mask of {self.name} has shape {mask.shape}, the picture {self.shape}")
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette(_palette())
        upright = Image.Exif()
        upright[ExifTags.Base.Orientation] = 1  # of a picture that its own EXIF data turn, too
        with replacing(path) as file:
            image.save(file, "PNG", exif=upright)


def _palette() -> list[int]:
    """R, G and B of 256 values: black, then hues that are far from those before."""
    colours = [(0.0, 0.0, 0.0)]
    for k in range(255):
        hue = k * 0.618034 % 1  # the golden section: every new hue falls into the largest gap
        colours.append(colorsys.hsv_to_rgb(hue, (1.0, 0.55)[k // 8 % 2], (1.0, 0.7)[k // 16 % 2]))
    return [round(255 * channel) for colour in colours for channel in colour]
