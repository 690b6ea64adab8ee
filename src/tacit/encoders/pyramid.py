"""The capability that dense tasks need of an encoder: maps from the bottleneck up to full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from tacit.encoders.card import EncoderCard
from tacit.errors import UsageError

GIVE_MAPS = "tacit/vnet, tacit/unet3d, tacit/unet2d (for images and slices), monai/UNet or monai/SwinUNETR"
_PARTS = ("forward_pyramid", "pyramid_features", "divisor")


class Pyramid(Protocol):
    """What an encoder has, besides timm's contract, if it gives maps.

    pyramid_features: channels of each map, in the order of `forward_pyramid`.
    divisor: each side of the input must be a multiple of it.
    """

    pyramid_features: tuple[int, ...]
    divisor: int

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """(B, C, *space) -> maps (B, K, *smaller), coarse to fine: bottleneck ..., full resolution."""
        ...


def pyramid_of(encoder: nn.Module) -> Pyramid:
    """The encoder itself, if it gives maps.

    Raises:
        UsageError: it does not; some that do are named.
    """
    missing = [part for part in _PARTS if not hasattr(encoder, part)]
    if not missing:
        return cast(Pyramid, encoder)
    card = getattr(encoder, "card", None)
    name = (card.spec if isinstance(card, EncoderCard) else "") or type(encoder).__name__
    if "forward_pyramid" in missing:
        raise UsageError(
            f"the encoder {name} gives no full-resolution maps, which segmentation needs: use {GIVE_MAPS}; "
            f"a module of your own needs {', '.join(_PARTS)}"
        )
    raise UsageError(f"the encoder {name} has forward_pyramid, but not {' and '.join(missing)}")


def check_space(name: str, space: Sequence[int], dims: int, divisor: int, fewest: int = 1) -> None:
    """Say in one line what is wrong with the sides of an input, if anything is.

    space: sides of the input; a network of 2 dimensions takes a third side of 1, a volume of one slice.
    fewest: voxels that the bottleneck must have; InstanceNorm cannot normalise a single one.

    Raises:
        UsageError: the sides do not fit.
    """
    got = " x ".join(map(str, space))
    one_slice = dims == 2 and len(space) == 3 and space[-1] == 1
    if len(space) != dims and not one_slice:
        wanted = "slices, (X, Y) or (X, Y, 1)" if dims == 2 else "volumes, (X, Y, Z)"
        raise UsageError(f"{name} takes {wanted}, not {got}")
    sides, voxels = space[:dims], 1
    for side in sides:
        voxels *= side // divisor
    if any(side < 1 or side % divisor for side in sides):
        mended = [max(divisor, -(-side // divisor) * divisor) for side in sides]
        raise UsageError(
            f"{name} needs sides that are multiples of {divisor}, not {got}: "
            f"pass a patch of {' x '.join(map(str, [*mended, *space[dims:]]))}"
        )
    if voxels < fewest:
        raise UsageError(
            f"{name} halves {got} down to a single voxel, which InstanceNorm cannot normalise: "
            f"make a side of the patch {2 * divisor} or more"
        )


def check_channels(name: str, x: Tensor, channels: int) -> None:
    """Say in one line that an input is no batch (B, channels, *space), if it is none.

    Raises:
        UsageError: it is none.
    """
    if x.ndim < 3 or x.shape[1] != channels:
        raise UsageError(f"{name} takes batches (B, {channels}, sides ...), not {tuple(x.shape)}")


def check_arguments(name: str, *, dropout: float = 0.0, **counts: int) -> None:
    """Arguments of a network from a spec string, which anyone can type.

    Raises:
        UsageError: a count that is no whole number of at least 1, or a dropout out of [0, 1).
    """
    for word, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise UsageError(f"{name} needs {word} of at least 1, not {count}")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UsageError(f"{name}: dropout must lie in [0, 1), not {dropout}")
