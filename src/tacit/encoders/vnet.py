"""The V-Net that semi-supervised segmentation of volumes is compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from tacit.batch import Modality
from tacit.encoders.pyramid import check_arguments, check_channels, check_space
from tacit.errors import unknown

Norm = Literal["batch", "instance"]
_ENCODER = (1, 2, 3, 3, 3)  # convolutions of each stage, fine to coarse
_DECODER = (3, 3, 2, 1)  # coarse to fine


class VNet(nn.Module):
    """Five stages down and four up, skip connections added; timm's contract, and a pyramid of five maps.

    From Milletari et al., "V-Net", 2016, arXiv 1606.04797, in the form that UA-MT and the methods after it
    share, as in the released code of TraCoCo (Liu et al., arXiv 2203.14523). Every convolution has a bias and
    is followed by a norm and ReLU; there is no residual inside a stage. w is `width`:

        1..5   1, 2, 3, 3, 3 convolutions 3x3x3 with w, 2w, 4w, 8w, 16w channels; between stages a convolution
               2x2x2 of stride 2 doubles the channels; Dropout3d after stage 5, the bottleneck
        6..9   a transposed convolution 2x2x2 of stride 2 halves the channels, the encoder's map of that size
               is added, then 3, 3, 2, 1 convolutions 3x3x3; Dropout3d after stage 9, the finest map

    With a 1x1x1 convolution to 2 classes on the finest map it has 9,448,866 weights for 1 channel and width
    16. Weights begin as torch makes them.

    channels: of the input.
    norm: "batch", or "instance" without learned scale.
    dropout: probability that a whole channel is dropped, in [0, 1), at both places.

    num_features: 16w. pyramid_features: (16w, 8w, 4w, 2w, w). Input sides are multiples of 16; with
    "instance" at least one is 32 or more.

    Raises:
        UsageError: an unknown norm, a width below 1, a dropout out of [0, 1), or an input that does not fit.
    """

    modality: ClassVar[Modality] = "volume"
    divisor = 16

    def __init__(
        self, channels: int = 1, width: int = 16, norm: Norm = "batch", dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_arguments("tacit/vnet", channels=channels, width=width, dropout=dropout)
        if norm not in get_args(Norm):
            raise unknown("norm of tacit/vnet", str(norm), get_args(Norm))
        self.channels = channels
        self._fewest = 2 if norm == "instance" else 1
        w = [width * 2**i for i in range(5)]
        self.encode = nn.ModuleList(
            _stage(channels if i == 0 else w[i], w[i], count, norm) for i, count in enumerate(_ENCODER)
        )
        self.down = nn.ModuleList(
            _layer(nn.Conv3d(w[i], w[i + 1], 2, stride=2), w[i + 1], norm) for i in range(4)
        )
        self.up = nn.ModuleList(
            _layer(nn.ConvTranspose3d(w[i + 1], w[i], 2, stride=2), w[i], norm) for i in (3, 2, 1, 0)
        )
        self.decode = nn.ModuleList(
            _stage(w[i], w[i], count, norm) for i, count in zip((3, 2, 1, 0), _DECODER, strict=True)
        )
        self.dropout = nn.Dropout3d(dropout)
        self.num_features = w[4]
        self.pyramid_features = tuple(reversed(w))

    def check_space(self, space: Sequence[int]) -> None:
        """Raise UsageError unless an input can have these sides (X, Y, Z)."""
        check_space("tacit/vnet", space, 3, self.divisor, self._fewest)

    def _contract(self, x: Tensor) -> list[Tensor]:
        check_channels("tacit/vnet", x, self.channels)
        self.check_space(x.shape[2:])
        maps = [self.encode[0](x)]
        for down, stage in zip(self.down, self.encode[1:], strict=True):
            maps.append(stage(down(maps[-1])))
        return [*maps[:-1], self.dropout(maps[-1])]

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> five maps, (B, 16w, X/16, Y/16, Z/16) to (B, w, X, Y, Z)."""
        *skips, bottleneck = self._contract(x)
        maps = [bottleneck]
        for up, stage, skip in zip(self.up, self.decode, reversed(skips), strict=True):
            maps.append(stage(up(maps[-1]) + skip))
        return [*maps[:-1], self.dropout(maps[-1])]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the bottleneck, (B, 16w, X/16, Y/16, Z/16)."""
        return self._contract(x)[-1]

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, 16w, x, y, z) -> (B, 16w)."""
        return x.mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, 16w)."""
        return self.forward_head(self.forward_features(x))


def _stage(before: int, after: int, count: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        *(
            _layer(nn.Conv3d(before if i == 0 else after, after, 3, padding=1), after, norm)
            for i in range(count)
        )
    )


def _layer(convolution: nn.Module, after: int, norm: Norm) -> nn.Sequential:
    normalise = nn.BatchNorm3d(after) if norm == "batch" else nn.InstanceNorm3d(after)
    return nn.Sequential(convolution, normalise, nn.ReLU(inplace=True))
