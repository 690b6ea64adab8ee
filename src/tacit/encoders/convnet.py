"""A very small convolutional network, for laptops, demonstrations and tests."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.errors import UsageError


class ConvNet(nn.Module):
    """Stride-2 3x3 convolutions with BatchNorm and ReLU, then global average pooling; timm's contract.

    The default is the network of the laptop claim for DCL: widths 32, 64, 128, about 0.1 million
    parameters. Any input side of at least 8 pixels.

    width: channels of the first layer; each further layer has twice as many as the one before.
    depth: number of layers. A pixel of the last map sees 7, 15, 31 pixels of the image for 2, 3, 4.
    """

    def __init__(self, channels: int = 3, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise UsageError(
                f"tacit/convnet needs a width and a depth of at least 1, not {width} and {depth}"
            )
        layers: list[nn.Module] = []
        widths = tuple(width * 2**i for i in range(depth))
        for before, width in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.num_features = widths[-1]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the last map, (B, D, H / 2**layers, W / 2**layers)."""
        return self.layers(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D)."""
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        return self.forward_head(self.forward_features(x))
