"""Encoders by spec string.

    timm/resnet18                          any timm model, random weights
    timm/vit_small_patch16_224.dino        a tag after the dot: timm's pretrained weights
    timm/resnet18?weights=my.safetensors   weights from a file in timm's format
    timm/vit_tiny_patch16_224?img_size=32&patch_size=4     any argument of the model itself
    tacit/convnet                          ours, see OWN
    tacit/siamese-knee?width=32&pool=hv    with arguments of its own
    tacit/vnet, tacit/unet3d, tacit/unet2d networks for volumes, which give maps
    tacit/slices?image=timm/resnet50       volumes by their slices, see slice_transformer
    monai/UNet?channels=8,16,32            any segmentation network of MONAI, see monai_nets
    run:runs/photos                        the encoder that a run has learned
    random:SPEC                            the random twin: the same architecture, untrained

A model made for three channels takes any number, by timm's rule: for grey input the first layer's
weights are summed over the channels; for C channels they are repeated cyclically, times 3/C. So a grey
image, or one of 3, 6, ... equal channels, gets the response that it had in RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tacit.batch import Modality
from tacit.data.form import form_class
from tacit.encoders.card import EncoderCard, card_of, with_card
from tacit.encoders.convnet import ConvNet
from tacit.encoders.monai_nets import MonaiNet
from tacit.encoders.pyramid import GIVE_MAPS
from tacit.encoders.saved import WEIGHTS, load_card
from tacit.encoders.siamese_knee import SiameseKneeNet
from tacit.encoders.slice_transformer import build_slices, image_spec
from tacit.encoders.stem import SMALL, has_small_form, make_small_input
from tacit.encoders.unet import UNet2d, UNet3d
from tacit.encoders.vnet import VNet
from tacit.errors import TacitError, UsageError, unknown
from tacit.files import utf8_path
from tacit.rng import Rng, seeded

OWN: dict[str, Callable[..., nn.Module]] = {
    "convnet": ConvNet,
    "siamese-knee": SiameseKneeNet,
    "vnet": VNet,
    "unet3d": UNet3d,
    "unet2d": UNet2d,
    "slices": build_slices,
}
FAMILIES = ("timm", "tacit", "monai")
_FORMS = "timm/NAME, tacit/NAME or monai/NAME"


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec string taken apart."""

    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Take `family/name?key=value&...` apart; values are read as numbers or booleans if they can be.

        Raises:
            UsageError: no family, or one we do not know.
        """
        path, _, query = text.partition("?")
        family, slash, name = path.partition("/")
        if not slash:
            meant = "timm" if _is_timm(path) else "tacit" if path in OWN else ""
            hint = f"; did you mean '{meant}/{path}'?" if meant else ""
            raise UsageError(f"encoder '{text}' names no family{hint or ': write ' + _FORMS}")
        if family not in FAMILIES:
            raise unknown("encoder family", family, [*FAMILIES, "run:", "random:"])
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        return cls(family, name, {key: _value(value) for key, _, value in pairs})


def build_encoder(
    spec: str,
    *,
    channels: int = 3,
    size: int | None = None,
    patch: tuple[int, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    small_input: bool | None = None,
    seed: int = 0,
) -> nn.Module:
    """The encoder that a spec string names, with its card; see the module's page for the strings.

    channels: of the input; pretrained weights are inflated.
    size: side of the input in pixels. Default: the pretrained model's own.
    patch: for volumes, sides (X, Y, Z) of the input in voxels; the encoder must be made for volumes.
    mean, std: normalisation of inputs in [0, 1], for random weights; pretrained ones keep their own.
        Default: 0.5 each, which maps [0, 1] to [-1, 1]; volumes stay in [0, 1].
    small_input: 3x3 stem without pooling. Default: for sides up to 64 where the model has one.
    seed: of the random weights.

    Returns a module with timm's contract: `forward(x) -> (B, num_features)`, `forward_features(x)`.

    Raises:
        UsageError: unknown family or model, an option that it does not take, a package that is missing, or a
            patch that does not fit.
        TacitError: pretrained weights that cannot be had.
    """
    twin, spec = spec.startswith("random:"), spec.removeprefix("random:")
    if spec.startswith("run:"):
        return load_encoder(Path(spec.removeprefix("run:")), random_seed=seed if twin else None)
    parsed = Spec.parse(spec)
    with seeded(Rng.of(seed)("encoder")):
        model, pretrained = _build(parsed, channels, size, patch, twin)
        own_size = size or (max(patch) if patch else _own_size(model))
        small = own_size <= SMALL and has_small_form(model) if small_input is None else small_input
        if small:
            make_small_input(model)
    modality: Modality = "volume" if patch else getattr(model, "modality", "image")
    if pretrained:
        mean, std = _statistics(model, channels)
    # some timm models widen their features once more: num_features is what goes in there
    width: Any = getattr(model, "head_hidden_size", None) or model.num_features
    sides = {"size": own_size, "patch": None if patch is None else tuple(patch)}
    form = form_class(modality).make(channels, mean, std, **sides)
    return with_card(model, EncoderCard(spec, form, width, small, pretrained))


def load_encoder(folder: Path, *, random_seed: int | None = None) -> nn.Module:
    """The encoder of a run, in eval mode; with `random_seed` its untrained twin.

    Raises:
        UsageError: no run, or an encoder that was the user's own module and cannot be rebuilt.
        TacitError: weights that are damaged or do not fit the card.
    """
    card = load_card(Path(folder))
    if not card.spec:
        raise UsageError(
            f"'{folder}' was learned into a module of your own: build it, then load {WEIGHTS} into it"
        )
    encoder = build_encoder("random:" + card.spec, **card.architecture, seed=random_seed or 0)
    with_card(encoder, replace(card, learned=random_seed is None))
    if random_seed is None:
        try:
            with utf8_path(Path(folder) / WEIGHTS) as place:
                encoder.load_state_dict(load_file(place))
        except FileNotFoundError:
            raise TacitError(f"'{folder}' has lost its {WEIGHTS}") from None
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise TacitError(f"{Path(folder) / WEIGHTS} is damaged or of another model: {reason}") from None
    return encoder.eval()


def fixed_size(spec: str) -> int | None:
    """The input side that the model insists on (vision transformers), or None if it takes any."""
    if spec.startswith(("run:", "random:")) or not spec.startswith("timm/"):
        return None
    from timm.models import get_pretrained_cfg, is_model

    parsed = Spec.parse(spec)
    if "img_size" in parsed.options:
        size = parsed.options["img_size"]
        if not isinstance(size, int) or size < 1:
            raise UsageError(f"encoder {spec}: img_size must be a whole number of pixels, not '{size}'")
        return size
    name = parsed.name
    config = get_pretrained_cfg(name) if is_model(name.partition(".")[0]) else None
    return config.input_size[-1] if config is not None and config.fixed_input_size else None


def is_pretrained(spec: str) -> bool:
    """Whether a spec string brings learned weights."""
    if spec.startswith("random:"):
        return False
    if spec.startswith("run:"):
        return True
    parsed = Spec.parse(spec)
    if "image" in parsed.options:
        return is_pretrained(image_spec(parsed.options["image"]))
    return "." in parsed.name or "weights" in parsed.options


def _build(
    spec: Spec, channels: int, size: int | None, patch: tuple[int, ...] | None, twin: bool
) -> tuple[nn.Module, bool]:
    """The model, and whether its weights are pretrained."""
    if spec.family == "timm":
        model, pretrained = _build_timm(spec, channels, size, twin)
    elif spec.family == "monai":
        model, pretrained = MonaiNet(spec.name, channels, patch, spec.options), False
    else:
        model, pretrained = _build_own(spec, channels, max(patch[:2]) if patch else size, twin)
    if patch is not None:
        check_space = getattr(model, "check_space", None)
        if check_space is None:
            raise UsageError(
                f"the encoder {spec.family}/{spec.name} is made for images and gives no full-resolution maps "
                f"of volumes: use {GIVE_MAPS}"
            )
        check_space(patch)
    return model, pretrained


def _build_own(spec: Spec, channels: int, side: int | None, twin: bool) -> tuple[nn.Module, bool]:
    if spec.name not in OWN:
        raise unknown("encoder", f"tacit/{spec.name}", [f"tacit/{name}" for name in OWN])
    try:
        if spec.name == "slices":
            slices = build_slices(channels, side, twin=twin, **spec.options)
            return slices, card_of(slices.image).learned
        return OWN[spec.name](channels=channels, **spec.options), False
    except TypeError as error:
        raise UsageError(f"encoder tacit/{spec.name}: {error}") from None


def _build_timm(spec: Spec, channels: int, size: int | None, twin: bool) -> tuple[nn.Module, bool]:
    import timm

    if not _is_timm(spec.name):
        raise unknown("encoder", f"timm/{spec.name}", [f"timm/{name}" for name in timm.list_models()])
    options = dict(spec.options)
    weights = options.pop("weights", None)
    if weights is not None and not twin:
        if not Path(weights).is_file():
            raise UsageError(f"encoder weights '{weights}' are not a file")
        options["pretrained_cfg_overlay"] = {"file": str(weights)}
    if size is not None and fixed_size(f"timm/{spec.name}"):
        options.setdefault("img_size", size)
    pretrained = ("." in spec.name or weights is not None) and not twin
    try:
        model = timm.create_model(
            spec.name, pretrained=pretrained, num_classes=0, in_chans=channels, **options
        )
    except TypeError as error:
        raise UsageError(f"encoder timm/{spec.name}: {error}") from None
    except Exception as error:
        # timm raises whatever its hub client, file reader or model raises; the user needs one line
        what = "its pretrained weights could not be loaded" if pretrained else "it could not be built"
        raise TacitError(f"encoder timm/{spec.name}: {what}: {_first_line(error)}") from error
    return model, pretrained


def _is_timm(name: str) -> bool:
    from timm.models import is_model

    return is_model(name.partition(".")[0])


def _own_size(model: nn.Module) -> int:
    config = getattr(model, "pretrained_cfg", None) or {}
    return int(config.get("input_size", (3, 224, 224))[-1])


def _statistics(model: nn.Module, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The pretrained model's mean and std, repeated as its weights were; grey input gets their mean."""
    config: Any = model.pretrained_cfg
    mean, std = config["mean"], config["std"]
    if channels == 1:
        return (sum(mean) / len(mean),), (sum(std) / len(std),)
    repeat = math.ceil(channels / len(mean))
    return tuple((mean * repeat)[:channels]), tuple((std * repeat)[:channels])


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
