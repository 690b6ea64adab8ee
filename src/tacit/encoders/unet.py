"""U-Nets for volumes and for slices, as published methods of semi-supervised segmentation use them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from tacit.batch import Modality
from tacit.encoders.pyramid import check_arguments, check_channels, check_space

_SLICE_DROPOUT = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the stages of UNet2d, fine to coarse


class UNet3d(nn.Module):
    """A U-Net of two convolutions a stage; timm's contract, and a pyramid of depth + 1 maps.

    From Cicek et al., "3D U-Net", 2016, arXiv 1606.06650, in the form of the released code of TraCoCo (Liu et
    al., arXiv 2203.14523) for BraTS. A stage is twice a 3x3x3 convolution with bias, InstanceNorm (no learned
    scale, no running statistics) and ReLU. w is `width`:

        down   stages of w, 2w, 4w, ... channels with a maximum over 2x2x2 between them; dropout of single
               elements after the last, the bottleneck
        up     trilinear interpolation by 2 (corners not aligned), put beside the encoder's map of that size,
               then a stage with that map's channels; dropout of single elements after the finest

    With a 1x1x1 convolution to 2 classes on the finest map it has 5,884,050 weights for 1 channel, width 16
    and depth 4. Convolutions begin normal with He's variance 2 / inputs, biases as torch makes them.

    channels: of the input.
    depth: how often the sides are halved.
    dropout: in [0, 1), at both places.

    num_features: 2**depth w. pyramid_features: (2**depth w, ..., 2w, w). Input sides are multiples of
    2**depth, at least one of them twice as long or more.

    Raises:
        UsageError: width or depth below 1, a dropout out of [0, 1), or an input that does not fit.
    """

    modality: ClassVar[Modality] = "volume"

    def __init__(self, channels: int = 1, width: int = 16, depth: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        check_arguments("tacit/unet3d", channels=channels, width=width, depth=depth, dropout=dropout)
        self.channels, self.divisor = channels, 2**depth
        widths = [width * 2**i for i in range(depth + 1)]
        self.encode = nn.ModuleList(_stage3d(a, b) for a, b in pairwise([channels, *widths]))
        self.decode = nn.ModuleList(_stage3d(a + b, a) for a, b in reversed(list(pairwise(widths))))
        self.pool = nn.MaxPool3d(2)
        self.up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
        self.dropout = nn.Dropout(dropout)
        self.num_features = widths[-1]
        self.pyramid_features = tuple(reversed(widths))
        self.initialise()

    def initialise(self) -> None:
        """Draw all weights again, from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                module.reset_parameters()
                nn.init.kaiming_normal_(module.weight)

    def check_space(self, space: Sequence[int]) -> None:
        """Raise UsageError unless an input can have these sides (X, Y, Z)."""
        check_space("tacit/unet3d", space, 3, self.divisor, fewest=2)

    def _contract(self, x: Tensor) -> list[Tensor]:
        check_channels("tacit/unet3d", x, self.channels)
        self.check_space(x.shape[2:])
        maps = [self.encode[0](x)]
        for stage in self.encode[1:]:
            maps.append(stage(self.pool(maps[-1])))
        return [*maps[:-1], self.dropout(maps[-1])]

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> depth + 1 maps, from the bottleneck to (B, w, X, Y, Z)."""
        *skips, bottleneck = self._contract(x)
        maps = [bottleneck]
        for stage, skip in zip(self.decode, reversed(skips), strict=True):
            maps.append(stage(torch.cat([skip, self.up(maps[-1])], 1)))
        return [*maps[:-1], self.dropout(maps[-1])]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the bottleneck, (B, num_features, X / divisor, Y / divisor, Z / divisor)."""
        return self._contract(x)[-1]

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, num_features, x, y, z) -> (B, num_features)."""
        return x.mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, num_features)."""
        return self.forward_head(self.forward_features(x))


class UNet2d(nn.Module):
    """The U-Net for slices of the SSL4MIS benchmark; timm's contract, and a pyramid of five maps.

    After Ronneberger et al., "U-Net", 2015, arXiv 1505.04597, in the form of the released code of TraCoCo
    (Liu et al., arXiv 2203.14523) for ACDC. A stage is a 3x3 convolution with bias, BatchNorm, LeakyReLU
    0.01, dropout of single elements, and the same once more without dropout. w is `width`:

        1..5   stages of w, 2w, 4w, 8w, 16w channels with dropout 0.05, 0.1, 0.2, 0.3, 0.5, and a maximum over
               2x2 between them; the fifth is the bottleneck
        6..9   a 1x1 convolution that halves the channels and bilinear interpolation by 2 (corners aligned),
               put beside the encoder's map of that size, then a stage with that map's channels, without
               dropout

    The released code asks for transposed convolutions and does not hand the wish on: what it builds is the
    above, with a 3x3 convolution as head 1,813,764 weights for 1 channel, width 16 and 4 classes. A 1x1 head,
    which our methods put on, has 512 fewer.

    Takes (B, C, X, Y), and volumes of one slice, (B, C, X, Y, 1), whose maps then end in a side of 1 as well.

    channels: of the input.

    num_features: 16w. pyramid_features: (16w, 8w, 4w, 2w, w). X and Y are multiples of 16.

    Raises:
        UsageError: a width below 1, or an input that does not fit.
    """

    divisor = 16

    def __init__(self, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        check_arguments("tacit/unet2d", channels=channels, width=width)
        self.channels = channels
        widths = [width * 2**i for i in range(5)]
        self.encode = nn.ModuleList(
            _stage2d(a, b, p) for (a, b), p in zip(pairwise([channels, *widths]), _SLICE_DROPOUT, strict=True)
        )
        coarse_to_fine = list(reversed(list(pairwise(widths))))
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in coarse_to_fine)
        self.decode = nn.ModuleList(_stage2d(2 * a, a, 0.0) for a, _ in coarse_to_fine)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.num_features = widths[-1]
        self.pyramid_features = tuple(reversed(widths))

    def check_space(self, space: Sequence[int]) -> None:
        """Raise UsageError unless an input can have these sides, (X, Y) or (X, Y, 1)."""
        check_space("tacit/unet2d", space, 2, self.divisor)

    def _contract(self, x: Tensor) -> list[Tensor]:
        check_channels("tacit/unet2d", x, self.channels)
        self.check_space(x.shape[2:])
        maps = [self.encode[0](x.flatten(3) if x.ndim == 5 else x)]
        for stage in self.encode[1:]:
            maps.append(stage(self.pool(maps[-1])))
        return maps

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """(B, C, X, Y) -> five maps, (B, 16w, X/16, Y/16) to (B, w, X, Y); with a side of 1 if x has it."""
        *skips, bottleneck = self._contract(x)
        maps = [bottleneck]
        for narrow, stage, skip in zip(self.narrow, self.decode, reversed(skips), strict=True):
            maps.append(stage(torch.cat([skip, self.up(narrow(maps[-1]))], 1)))
        return [m[..., None] for m in maps] if x.ndim == 5 else maps

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, X, Y) -> the bottleneck, (B, 16w, X/16, Y/16); with a last side of 1 if x has it."""
        bottleneck = self._contract(x)[-1]
        return bottleneck[..., None] if x.ndim == 5 else bottleneck

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, 16w, x, y) or (B, 16w, x, y, 1) -> (B, 16w)."""
        return x.flatten(2).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y) or (B, C, X, Y, 1) -> (B, 16w)."""
        return self.forward_head(self.forward_features(x))


def _stage3d(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv3d(width, after, 3, padding=1), nn.InstanceNorm3d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _stage2d(before: int, after: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(after, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(),
    )
