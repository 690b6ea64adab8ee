"""The network of Semixup: one small convolutional branch, shared by the two sides of a knee."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from tacit.errors import UsageError, unknown

Pool = Literal["hv", "vh", "gap"]
_SMALLEST = 16  # pixels: below, nothing would be left to normalise over after three halvings and a pooling


class SiameseKneeNet(nn.Module):
    """Nine convolutions and a separable pooling, the same weights for every channel; timm's contract.

    From Nguyen et al., "Semixup", IEEE TMI 2020, arXiv 2003.01944, as in its published code. Every
    convolution is 3 x 3 without bias, followed by InstanceNorm (no learned scale, no running statistics)
    and LeakyReLU 0.2:

        1  three with `width` channels, dropout                   width x 128 x 128 for a patch of 128
        2  stride 2 and one more with 2 `width`, dropout        2 width x  64 x  64
        3  stride 2 and one more with 4 `width`, dropout        4 width x  32 x  32
        4  stride 2 and one more with 8 `width`                 8 width x  16 x  16
        5  separable pooling                                    8 width

    Each channel of the input goes through the branch on its own, and the features of all channels are
    concatenated in their order: exchanging the two sides of a knee exchanges the halves of the features.
    So one channel has 8 `width` features (our choice; the paper knows two channels only), and the number
    of weights, 1.2 million for width 32, does not depend on the channels. Multiplying an input by a
    positive number changes nothing, but for the norm's epsilon. The classifier (dropout, then a linear map
    without bias) belongs to the method.

    channels: sides, at least 1. num_features is channels x 8 x width, 512 for the paper's network.
    width: channels of the first convolutions.
    pool: "hv" takes the maximum over the width, then a 1 x 1 convolution as above, then the maximum over
        the height; "vh" height first; "gap" the mean over both, without that convolution.
    dropout: in the blocks, of single elements, as in the published code. It is part of Semixup's
        perturbations: keep it.

    Input sides of at least 16 pixels; the last map is an eighth of them, rounded up.

    Raises:
        UsageError: channels or width below 1, a dropout out of [0, 1), or an unknown pool.
    """

    def __init__(self, channels: int = 2, width: int = 32, pool: Pool = "hv", dropout: float = 0.35) -> None:
        super().__init__()
        if not isinstance(width, int) or min(channels, width) < 1:
            raise UsageError(
                "tacit/siamese-knee needs at least 1 channel and a width of at least 1, "
                f"not {channels} and {width}"
            )
        if pool not in get_args(Pool):
            raise unknown("pool of tacit/siamese-knee", str(pool), get_args(Pool))
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), not {dropout}")
        w = width
        self.channels, self.pool = channels, pool
        self.num_features = channels * 8 * w
        self.blocks = nn.Sequential(
            nn.Sequential(_layer(1, w), _layer(w, w), _layer(w, w), nn.Dropout(dropout)),
            nn.Sequential(_layer(w, 2 * w, stride=2), _layer(2 * w, 2 * w), nn.Dropout(dropout)),
            nn.Sequential(_layer(2 * w, 4 * w, stride=2), _layer(4 * w, 4 * w), nn.Dropout(dropout)),
            nn.Sequential(_layer(4 * w, 8 * w, stride=2), _layer(8 * w, 8 * w)),
        )
        self.squeeze = nn.Identity() if pool == "gap" else _layer(8 * w, 8 * w, kernel=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the last maps of all channels, (B, C x 8 width, H / 8, W / 8)."""
        if x.ndim != 4 or x.shape[1] != self.channels or min(x.shape[2:]) < _SMALLEST:
            raise UsageError(
                f"tacit/siamese-knee takes (B, {self.channels}, H, W) with sides of at least {_SMALLEST} "
                f"pixels, not {tuple(x.shape)}"
            )
        maps = self.blocks(x.flatten(0, 1)[:, None])  # (B x C, 8 width, h, w)
        return maps.unflatten(0, (-1, self.channels)).flatten(1, 2)

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, C x 8 width, h, w) -> (B, C x 8 width)."""
        maps = x.unflatten(1, (self.channels, -1)).flatten(0, 1)
        return self._pooled(maps).unflatten(0, (-1, self.channels)).flatten(1)

    def _pooled(self, maps: Tensor) -> Tensor:
        if self.pool == "gap":
            return maps.mean((2, 3))
        first = 3 if self.pool == "hv" else 2
        return self.squeeze(maps.amax(first, keepdim=True)).amax((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features)."""
        return self.forward_head(self.forward_features(x))


def _layer(before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.InstanceNorm2d(after),
        nn.LeakyReLU(0.2, inplace=True),
    )
