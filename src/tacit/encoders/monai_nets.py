"""Any segmentation network of MONAI as an encoder that gives maps.

monai/UNet                                    with the defaults below
monai/SwinUNETR?feature_size=48               any argument of MONAI's class
monai/UNet?channels=8,16,32&strides=2,2       commas make a sequence of whole numbers
monai/SegResNet?maps=32                       channels of the full-resolution map, default 16
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tacit.batch import Modality
from tacit.encoders.pyramid import GIVE_MAPS, check_arguments, check_channels, check_space
from tacit.errors import UsageError, require, unknown

_TRIAL = (64, 32, 32)  # the input that finds the bottleneck: five halvings leave two voxels of it
_TOKENS = {"UNETR": "vit"}  # networks whose bottleneck is a sequence of tokens, and the module that gives it
_STAGES = {"SegResNet": "down_layers"}  # networks where the last of the smallest maps is not the bottleneck


class MonaiNet(nn.Module):
    """A network of `monai.networks.nets`; timm's contract, and a pyramid of two maps: bottleneck and finest.

    The bottleneck is found once, by a trial pass over zeros: of the outputs of all submodules it is the last
    of those that have the fewest voxels. (Outputs of a single voxel count only if there are no others: they
    are global pooling, not maps. Of SegResNet it is the last stage down, because the decoder's first
    convolution, which has thrown half of the channels away, comes after it at the same size. Of UNETR it is
    the tokens of its transformer.) `forward` runs the whole network for the bottleneck's sake: MONAI's
    networks cannot be cut open in general.

    name: of the class, in upper or lower case; any that takes in_channels and out_channels and answers with a
        map of the size of its input.
    channels: of the input.
    patch: sides of the input; needed by classes with an `img_size`, which then take no other.
    options: `maps`, channels of the finest map, and arguments of the class. Our choice where MONAI has no
        defaults: UNet and AttentionUnet have channels 16, 32, 64, 128, 256 and strides of 2 (UNet with 2
        residual units, as MONAI's tutorials have it), DynUNet kernels of 3 and strides 1, 2, 2, 2, 2. With
        spatial_dims=2 volumes of one slice, (B, C, X, Y, 1), are taken as well as (B, C, X, Y).

    divisor: how much coarser the bottleneck is than the input, 32 for SwinUNETR, 16 for most.
    num_features: the bottleneck's channels. pyramid_features: (num_features, maps).

    Raises:
        UsageError: MONAI is not installed or has no such class, an option is wrong, or the class gives no
            maps.
    """

    modality: ClassVar[Modality] = "volume"

    def __init__(
        self,
        name: str,
        channels: int = 1,
        patch: tuple[int, ...] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        build = _class_of(name)
        name = build.__name__
        given = {key: _sequence(value) for key, value in (options or {}).items()}
        maps = given.pop("maps", 16)
        check_arguments(f"monai/{name}", channels=channels, maps=maps)
        self.name, self.channels, self.maps = f"monai/{name}", channels, maps
        self.dims: int = given.setdefault("spatial_dims", 3)
        if self.dims not in (2, 3):
            raise UsageError(f"monai/{name}: spatial_dims must be 2 or 3, not {self.dims}")
        parameters = inspect.signature(build).parameters
        if "spatial_dims" not in parameters:
            del given["spatial_dims"]
        self.fixed: tuple[int, ...] | None = None
        if "img_size" in parameters:
            self.fixed = _sides(given.setdefault("img_size", (patch or _TRIAL)[: self.dims]), self.dims)
        for key in given:
            if key not in parameters:
                raise unknown(f"option of monai/{name}", key, [*parameters, "maps"])
        self.net = self._built(build, {**_defaults(name, given), **given})
        self._tokens = _TOKENS.get(name)
        self._find_bottleneck(self.fixed or _TRIAL[: self.dims])
        normed = any(isinstance(module, nn.InstanceNorm2d | nn.InstanceNorm3d) for module in self.modules())
        self._fewest = 2 if normed else 1

    def _built(self, build: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
        try:
            return build(in_channels=self.channels, out_channels=self.maps, **options)
        except Exception as error:
            # MONAI raises whatever its layers raise; the user needs one line
            raise UsageError(f"encoder {self.name}: {_reason(error)}") from error

    def _find_bottleneck(self, sides: tuple[int, ...]) -> None:
        """Set where the bottleneck is, its channels and the divisor."""
        seen, full = self._trial(sides)
        if not isinstance(full, Tensor) or full.shape != (1, self.maps, *sides):
            raise UsageError(
                f"the encoder {self.name} gives no full-resolution maps, which segmentation needs: "
                f"use {GIVE_MAPS}"
            )
        if self._tokens:
            self._where, self.divisor = self._tokens, 16
            self.num_features = int(self.net.hidden_size)  # type: ignore[arg-type]  # a number in UNETR
        else:
            voxels = [math.prod(shape[2:]) for _, shape in seen]
            fewest = min([count for count in voxels if count > 1] or voxels)
            coarsest = [entry for entry, count in zip(seen, voxels, strict=True) if count == fewest]
            if stages := _STAGES.get(self.name.removeprefix("monai/")):
                last = len(self.net.get_submodule(stages)) - 1  # type: ignore[arg-type]  # a ModuleList
                coarsest = [entry for entry in seen if entry[0] == f"{stages}.{last}"]
            self._where, shape = coarsest[-1]
            self.num_features = shape[1]
            self.divisor = max(-(-side // small) for side, small in zip(sides, shape[2:], strict=True))
        self.pyramid_features = (self.num_features, self.maps)

    def _trial(self, sides: tuple[int, ...]) -> tuple[list[tuple[str, torch.Size]], Any]:
        """Names and shapes of all maps of a pass in eval mode, in their order, and the answer."""
        seen: list[tuple[str, torch.Size]] = []

        def watch(name: str) -> Callable[..., None]:
            def see(module: nn.Module, given: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim == self.dims + 2:
                    seen.append((name, output.shape))

            return see

        handles = [module.register_forward_hook(watch(name)) for name, module in self.net.named_modules()]
        training = self.net.training
        try:
            with torch.no_grad():
                full = _finest(self.net.eval()(torch.zeros(1, self.channels, *sides)), self.dims)
        except Exception as error:
            # as above
            size = " x ".join(map(str, sides))
            raise UsageError(
                f"encoder {self.name} cannot take an input of {size}: {_reason(error)}"
            ) from error
        finally:
            self.net.train(training)
            for handle in handles:
                handle.remove()
        return seen, full

    def check_space(self, space: Sequence[int]) -> None:
        """Raise UsageError unless an input can have these sides."""
        check_space(self.name, space, self.dims, self.divisor, self._fewest)
        if self.fixed and tuple(space[: self.dims]) != self.fixed:
            built, got = (" x ".join(map(str, sides)) for sides in (self.fixed, space))
            raise UsageError(f"{self.name} was built for inputs of {built} and takes no {got}")

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """(B, C, *space) -> bottleneck (B, num_features, *space / divisor) and map (B, maps, *space)."""
        check_channels(self.name, x, self.channels)
        self.check_space(x.shape[2:])
        if x.ndim > self.dims + 2:
            return [maps[..., None] for maps in self.forward_pyramid(x[..., 0])]
        kept: list[Any] = []
        module = self.net.get_submodule(self._where)
        handle = module.register_forward_hook(lambda module, given, output: kept.append(output))
        try:
            full = _finest(self.net(x), self.dims)
        finally:
            handle.remove()
        if not self._tokens:
            return [kept[-1], full]
        tokens = kept[-1][0]  # (B, N, num_features); MONAI's ViT gives the tokens of its layers besides
        grid = [side // self.divisor for side in x.shape[2:]]
        return [tokens.transpose(1, 2).unflatten(2, grid), full]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, *space) -> the bottleneck, (B, num_features, *space / divisor)."""
        return self.forward_pyramid(x)[0]

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, num_features, *small) -> (B, num_features)."""
        return x.flatten(2).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) -> (B, num_features)."""
        return self.forward_head(self.forward_features(x))


def _class_of(name: str) -> type[nn.Module]:
    """The class of that name; MONAI has several spellings of some, so the case of letters is ignored."""
    nets = require("monai.networks.nets", "volumes")
    found = {
        key.lower(): value
        for key, value in vars(nets).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and {"in_channels", "out_channels"} <= inspect.signature(value).parameters.keys()
    }
    if name.lower() in found:
        return found[name.lower()]
    if inspect.isclass(getattr(nets, name, None)):
        raise UsageError(
            f"the encoder monai/{name} does not take in_channels and out_channels: use {GIVE_MAPS}"
        )
    raise unknown("encoder", f"monai/{name}", [f"monai/{key}" for key in found])


def _defaults(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What MONAI's class asks for and has no default of, made to fit what is given."""
    if name in ("UNet", "AttentionUnet"):
        channels = given.get("channels", (16, 32, 64, 128, 256))
        strides = (2,) * (len(channels) - 1) if isinstance(channels, tuple) else (2, 2, 2, 2)
        units = {} if name == "AttentionUnet" else {"num_res_units": 2}
        return {"channels": channels, "strides": strides, **units}
    if name == "DynUNet":
        strides = given.get("strides", (1, 2, 2, 2, 2))
        levels = strides if isinstance(strides, tuple) else (1, 2, 2, 2, 2)
        return {"kernel_size": (3,) * len(levels), "strides": strides, "upsample_kernel_size": levels[1:]}
    return {}


def _finest(output: Any, dims: int) -> Any:
    """The full-resolution map, which comes first where deep supervision gives a list or one more axis."""
    if isinstance(output, list | tuple):
        output = output[0]
    return output[:, 0] if isinstance(output, Tensor) and output.ndim == dims + 3 else output


def _sequence(value: Any) -> Any:
    """`"16,32"` -> (16, 32); what is no list of whole numbers stays as it is."""
    if not isinstance(value, str) or "," not in value:
        return value
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        return value


def _sides(value: Any, dims: int) -> tuple[int, ...]:
    sides = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(sides) != dims or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"img_size must be {dims} whole numbers of voxels, not {value}")
    return sides


def _reason(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    # SwinUNETR and UNETR need einops, which MONAI itself does not install
    return f"{line}: pip install 'tacit[volumes]'" if "No module named" in line else line
