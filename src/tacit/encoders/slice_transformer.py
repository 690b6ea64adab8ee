"""A volume as the sequence of its slices: an image encoder for each, a transformer that joins them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.encoders.card import EncoderCard, card_of
from tacit.encoders.deformable import DeformableAttention1d
from tacit.errors import UsageError, unknown

Attention = Literal["deformable", "plain"]
Axis = Literal["slices", "features"]
_STAGES = 4


class SlicePyramid(nn.Module):
    """What an image encoder says of a slice: the pooled maps of its last four stages, of length 1 each.

    From encoders with timm's `forward_intermediates` (nearly all of timm); of others their feature vector
    alone, of length 1.

    image: the encoder. repeat_last: whether the last stage comes twice, as in the released code (5888 numbers
        instead of 3840 for ResNet-50).
    """

    def __init__(self, image: nn.Module, repeat_last: bool = False) -> None:
        super().__init__()
        self.image: Any = image
        self.repeat_last = repeat_last
        self.staged = hasattr(image, "forward_intermediates") and hasattr(image, "feature_info")
        if self.staged:
            stages: Any = image.feature_info
            widths = [int(stage["num_chs"]) for stage in stages][-_STAGES:]
        else:
            widths = [_width(image)]
        self.count = len(widths)
        self.width = sum(widths) + (widths[-1] if repeat_last else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width)."""
        if self.staged:
            maps = self.image.forward_intermediates(x, indices=self.count, intermediates_only=True)
            pooled = [each.mean((2, 3)) for each in maps]
        else:
            pooled = [self.image(x)]
        pooled = [F.normalize(each, dim=1) for each in pooled]
        return torch.cat(pooled + pooled[-1:] if self.repeat_last else pooled, 1)


class SliceLayer(nn.Module):
    """x <- drop(LN(x + attention(x))); x <- drop(LN(x + FFN(x))), the FFN with one hidden GELU layer.

    Tokens are (B, N, d). attend_over: whether slices are what is attended to, d being the channels, or the
    reverse, as in the released code, which fixes the number of slices.
    """

    def __init__(
        self, dim: int, hidden: int, dropout: float, attention: DeformableAttention1d, attend_over: Axis
    ) -> None:
        super().__init__()
        self.attention, self.attend_over = attention, attend_over
        self.after_attention, self.after_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        mixed = self.attention(x.mT).mT if self.attend_over == "slices" else self.attention(x)
        x = self.drop(self.after_attention(x + mixed))
        return self.drop(self.after_feed(x + self.feed(x)))


class SliceEncoder(nn.Module):
    """An encoder of volumes whose slices an image encoder reads; timm's contract.

    From Nguyen et al., "Joint Self-Supervised Image-Volume Representation Learning with Intra-Inter
    Contrastive Clustering" (AAAI 2023, arXiv 2212.01893), sizes from its released code. A volume is (B, C, X,
    Y, N), its slices lie along the last axis, their rows along X:

        z_i = linear(pyramid(slice i))           f_intra: see SlicePyramid; d numbers
        Z   = unit(mean over i of f_inter(z)_i)  f_inter: 4 layers with deformable attention over slices

    `image` is the image encoder, which can be used alone: `load_encoder(run).image` has a card of its own and
    is what a slice-wise task takes (`image.forward_intermediates` for maps). Volumes of any number of slices.

    The paper describes attention between slices; its released code attends over the d features, with the
    slices as channels (`attend_over="features"`). What is here by default follows the paper.

    Args:
        image: an image encoder with a card and C channels.
        dim: d, a multiple of groups.
        depth: layers of f_inter.
        heads: of attention, a multiple of groups.
        dim_head: channels of a head.
        hidden: width of the feed-forward layers.
        downsample: slices per key.
        groups: of channels, each with offsets of its own.
        dropout: in f_inter.
        attention: deformable, or plain to compare with.
        attend_over: slices, or features to compare with.
        slices: number of slices, needed for attend_over="features" only; a multiple of groups.
        repeat_last: whether the last stage of the pyramid comes twice.

    Raises:
        UsageError: numbers that do not fit together.
    """

    modality = "volume"

    def __init__(
        self,
        image: nn.Module,
        *,
        dim: int = 640,
        depth: int = 4,
        heads: int = 8,
        dim_head: int = 64,
        hidden: int = 720,
        downsample: int = 4,
        groups: int = 8,
        dropout: float = 0.1,
        attention: Attention = "deformable",
        attend_over: Axis = "slices",
        slices: int | None = None,
        repeat_last: bool = False,
    ) -> None:
        super().__init__()
        for name, value, known in (("attention", attention, Attention), ("attend_over", attend_over, Axis)):
            if value not in get_args(known):
                raise unknown(f"{name} of tacit/slices", str(value), get_args(known))
        if attend_over == "features" and not slices:
            raise UsageError(
                "tacit/slices with attend_over=features is made for one number of slices: add slices=N"
            )
        self.pyramid = SlicePyramid(image, repeat_last)
        self.to_tokens = nn.Linear(self.pyramid.width, dim)
        self.slices = slices if attend_over == "features" else None
        self.layers = nn.Sequential()
        for _ in range(depth):
            mixing = DeformableAttention1d(
                self.slices or dim,
                heads=heads,
                dim_head=dim_head,
                downsample=downsample,
                offset_kernel=max(6, downsample),
                groups=groups,
                deformable=attention == "deformable",
            )
            self.layers.append(SliceLayer(dim, hidden, dropout, mixing, attend_over))
        self.num_features = dim

    @property
    def image(self) -> nn.Module:
        """The image encoder."""
        return self.pyramid.image

    @property
    def card(self) -> EncoderCard | None:
        """What another tool must know of it; what also holds for the image encoder goes to its card."""
        return self._card

    @card.setter
    def card(self, card: EncoderCard) -> None:
        self._card = card
        own = card_of(self.image)
        own.form = replace(own.form, mean=card.form.mean, std=card.form.std)
        own.learned = card.learned

    _card: EncoderCard | None = None

    @property
    def pretrained_cfg(self) -> Any:
        """timm's record of the image encoder, where it has one."""
        return getattr(self.image, "pretrained_cfg", None)

    def check_space(self, space: tuple[int, ...]) -> None:
        """Refuse a patch that the encoder cannot read.

        Raises:
            UsageError: not three sides, or another number of slices than it was made for.
        """
        if len(space) != 3 or self.slices not in (None, space[-1]):
            raise UsageError(
                f"tacit/slices takes patches X,Y,{self.slices or 'N'}, not {','.join(map(str, space))}"
            )

    def embed_slices(self, x: Tensor) -> Tensor:
        """f_intra: (B, C, X, Y, N) -> (B, N, d)."""
        if x.ndim != 5 or self.slices not in (None, x.shape[-1]):
            raise UsageError(
                f"tacit/slices takes volumes (B, C, X, Y, {self.slices or 'N'}), not {tuple(x.shape)}"
            )
        images = x.movedim(-1, 1).flatten(0, 1)  # (B N, C, X, Y)
        return self.to_tokens(self.pyramid(images)).unflatten(0, (len(x), -1))

    def join(self, tokens: Tensor) -> Tensor:
        """f_inter: (B, N, d) -> (B, N, d)."""
        return self.layers(tokens)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, N) -> (B, N, d): the slices after they have seen each other."""
        return self.join(self.embed_slices(x))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """(B, N, d) -> (B, d): their mean, of length 1."""
        return F.normalize(tokens.mean(1), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, N) -> Z, (B, d) of length 1."""
        return self.forward_head(self.forward_features(x))


def build_slices(
    channels: int = 1,
    size: int | None = None,
    image: str = "timm/resnet50",
    small_input: bool | None = None,
    twin: bool = False,
    **options: Any,
) -> SliceEncoder:
    """What `tacit/slices?image=SPEC&...` names: a SliceEncoder on a new image encoder.

    channels: of the volume. size: side in pixels of its slices, for image encoders that insist on one and for
        the choice of a small stem.
    image: spec string of the image encoder; where it has options of its own, they are separated by `;`, as in
        `tacit/slices?image=tacit/convnet?width=16;depth=3&dim=64`.
    small_input: 3x3 stem without pooling. Default: for slices up to 64 pixels where the image encoder has
        one.
    twin: whether the image encoder is to be untrained, whatever its name says.
    options: of SliceEncoder.
    """
    from tacit.encoders.zoo import build_encoder

    inner = image_spec(image)
    if inner.removeprefix("random:").startswith("run:"):
        raise UsageError(
            "tacit/slices cannot be rebuilt from a run that may move: build the image encoder with "
            "load_encoder(run), then SliceEncoder(image) of your own"
        )
    seed = int(torch.randint(2**31, ()))  # follows the seed of the whole, within which this is built
    inner = f"random:{inner.removeprefix('random:')}" if twin else inner
    trunk = build_encoder(inner, channels=channels, size=size, small_input=small_input, seed=seed)
    return SliceEncoder(trunk, **options)


def image_spec(option: Any) -> str:
    """The image encoder's own spec string, of the option `image` of `tacit/slices`."""
    return str(option).replace(";", "&")


def _width(image: nn.Module) -> int:
    width = getattr(image, "num_features", None)
    if not isinstance(width, int):
        raise UsageError(f"{type(image).__name__} has no num_features and cannot read slices")
    return width
