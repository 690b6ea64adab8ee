"""Moving the pixels of a batch of images, each by an affine map of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def affine_maps(angle: Tensor, zoom: Tensor, shift: Tensor, flip: Tensor | None = None) -> Tensor:
    """Where each place of a view comes from, (B, 2, 3) float32, see `WarpChoices`.

    The image is mirrored, magnified, turned about its centre and then shifted.

    Args:
        angle: (B,) float32, in degrees, counter-clockwise.
        zoom: (B,) float32, above 0; above 1 for a larger picture.
        shift: (B, 2) float32, downwards and to the right, in parts of the side.
        flip: (B,) bool, which to mirror left to right; none if not given.
    """
    cosine, sine = angle.deg2rad().cos() / zoom, angle.deg2rad().sin() / zoom
    mirror = 1.0 if flip is None else 1 - 2 * flip.float()
    x = torch.stack([cosine * mirror, -sine * mirror], 1)
    y = torch.stack([sine, cosine], 1)
    turn = torch.stack([x, y], 1)
    # the side is 2 long; (B, 2, 2) * (B, 1, 2), not a matrix product, which may keep ten bits only
    offset = (turn * (-2 * shift.flip(1)[:, None])).sum(2, keepdim=True)
    return torch.cat([turn, offset], 2)


def move(images: Tensor, affine: Tensor) -> Tensor:
    """The images with their pixels moved, bilinear, reflected at the edges.

    images: (B, C, S, S) float32, contiguous. affine: (B, 2, 3), see `WarpChoices`.
    """
    size = images.shape[-1]
    place = (torch.arange(size, device=images.device) + 0.5) * (2 / size) - 1
    across, down, offset = affine[..., None].unbind(2)  # (B, 2, 1) each
    # sums, not affine_grid's matrix product, which on some devices keeps ten bits of a coordinate
    grid = (across * place)[:, :, None] + (down * place + offset)[..., None]
    return F.grid_sample(
        images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="reflection", align_corners=False
    )
