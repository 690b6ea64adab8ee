"""Encoders by spec string.

    timm/resnet18                          any timm model, random weights
    timm/vit_small_patch16_224.dino        a tag after the dot: timm's pretrained weights
    timm/resnet18?weights=my.safetensors   weights from a file in timm's format
    timm/vit_tiny_patch16_224?img_size=32&patch_size=4     words that describe the model itself, see spec
    tacit/convnet                          ours, see OWN
    tacit/siamese-knee?width=32&pool=hv    with arguments of its own
    tacit/vnet, tacit/unet3d, tacit/unet2d networks for volumes, which give maps
    tacit/slices?image=timm/resnet50       volumes by their slices, see slice_transformer
    monai/UNet?channels=8,16,32            any segmentation network of MONAI, see monai_nets
    run:runs/photos                        the encoder that a run has learned
    random:SPEC                            the random twin: the same architecture, untrained, no file read

A model made for three channels takes any number, by timm's rule: for grey input the first layer's
weights are summed over the channels; for C channels they are repeated cyclically, times 3/C. So a grey
image, or one of 3, 6, ... equal channels, gets the response that it had in RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from tacit.batch import Modality
from tacit.data.form import form_class
from tacit.encoders.allowance import Allowance
from tacit.encoders.card import EncoderCard, card_of, with_card
from tacit.encoders.convnet import ConvNet
from tacit.encoders.loading import loading_lines
from tacit.encoders.monai_nets import MonaiNet
from tacit.encoders.pyramid import GIVE_MAPS
from tacit.encoders.saved import CARD, WEIGHTS, load_card
from tacit.encoders.siamese_knee import SiameseKneeNet
from tacit.encoders.slice_transformer import SliceEncoder, build_slices, image_spec
from tacit.encoders.spec import FAMILIES, MONAI_WORDS, TIMM_WORDS, WEIGHTS_WORD, Spec, is_timm
from tacit.encoders.stem import SMALL, has_small_form, make_small_input
from tacit.encoders.unet import UNet2d, UNet3d
from tacit.encoders.vnet import VNet
from tacit.encoders.weights import Header, check_header, fill, read_header, read_weights
from tacit.errors import TacitError, UsageError, did_you_mean, unknown
from tacit.rng import Rng, seeded
from tacit.untrusted import first_line, open_file

__all__ = ["FAMILIES", "Spec", "build_encoder", "fixed_size", "is_pretrained", "load_encoder"]

OWN: dict[str, Callable[..., nn.Module]] = {
    "convnet": ConvNet,
    "siamese-knee": SiameseKneeNet,
    "vnet": VNet,
    "unet3d": UNet3d,
    "unet2d": UNet2d,
    "slices": build_slices,
}
_GIVEN = frozenset({"channels", "size", "twin", "options"})
"""Arguments of our constructors that are not options of a spec."""
_BUILT = ("image", "volume")
"""Kinds of data that encoders of a spec are known to be for."""


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
        own_size = size or (max(patch) if patch else fixed_size(spec) or _own_size(model))
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

    Nothing outside of the folder is opened, and nothing larger is built than what the file of weights holds.

    Raises:
        UsageError: no run, or an encoder that was the user's own module and cannot be rebuilt.
        TacitError: weights that are damaged or do not fit the card.
    """
    folder = Path(folder)
    card, path = load_card(folder), folder / WEIGHTS
    if not card.spec:
        raise UsageError(
            f"'{folder}' was learned into a module of your own: build it, and pass it to "
            "tacit.Run(folder).encoder(module)"
        )
    try:
        header = read_header(path)
        encoder = _described(card, folder, header, random_seed or 0)
        check_header(header, encoder)
        if random_seed is None:
            fill(encoder, read_weights(path))
    except FileNotFoundError:
        raise TacitError(f"'{folder}' has lost its {WEIGHTS}") from None
    except (OSError, ValueError, SafetensorError, RuntimeError, MemoryError) as error:
        raise TacitError(f"{path} is damaged or of another model: {first_line(error)}") from None
    with_card(encoder, replace(card, learned=random_seed is None))
    return encoder.eval()


def fill_module(module: nn.Module, folder: Path) -> nn.Module:
    """Give the weights of a run to a module of the user's own, with the run's card; in eval mode.

    Raises:
        UsageError: no run. TacitError: weights that are damaged or of another module.
    """
    folder = Path(folder)
    card, path = load_card(folder), folder / WEIGHTS
    try:
        check_header(read_header(path), module)
        fill(module, read_weights(path))
    except FileNotFoundError:
        raise TacitError(f"'{folder}' has lost its {WEIGHTS}") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise TacitError(f"{path} does not fit the {type(module).__name__}: {first_line(error)}") from None
    return with_card(module, card).eval()


def _described(card: EncoderCard, folder: Path, header: Header, seed: int) -> nn.Module:
    """The untrained encoder that the card of a run describes.

    Raises:
        UsageError, TacitError: it cannot be built.
    """
    try:
        with Allowance(header.size, len(header.shapes)):
            encoder = build_encoder("random:" + card.spec, **card.architecture, seed=seed)
    except TacitError as error:
        raise type(error)(f"{folder / CARD} describes an encoder that cannot be built: {error}") from None
    built = card_of(encoder)
    for name, own, given in (
        ("num_features", card.num_features or built.num_features, built.num_features),
        ("modality", card.form.modality, built.form.modality if card.form.modality in _BUILT else None),
    ):
        if given not in (own, None):
            raise TacitError(f"{folder / CARD} is damaged: its {name} is {own}, and its spec gives {given}")
    return encoder


def how_to_load(card: EncoderCard) -> list[str]:
    """Lines of Python that load a saved encoder without us, where that can be."""
    fixed = fixed_size(card.spec) if card.spec else None
    return loading_lines(card, **({"img_size": card.form.sides["size"]} if fixed else {}))


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
        spec.check({*MONAI_WORDS, "maps"})
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
    slices = spec.name == "slices"
    takes = {**signature(OWN[spec.name]).parameters, **(signature(SliceEncoder).parameters if slices else {})}
    spec.check(takes.keys() - _GIVEN, texts=("image",) if slices else ())
    try:
        if slices:
            built = build_slices(channels, side, twin=twin, **spec.options)
            return built, card_of(built.image).learned
        return OWN[spec.name](channels=channels, **spec.options), False
    except TacitError:
        raise
    except Exception as error:
        # a layer raises whatever torch raises at numbers that make no sense; the user needs one line
        raise UsageError(f"encoder tacit/{spec.name}: {first_line(error)}") from None


def _build_timm(spec: Spec, channels: int, size: int | None, twin: bool) -> tuple[nn.Module, bool]:
    import timm

    if not is_timm(spec.name):
        near = did_you_mean(f"timm/{spec.name}", [f"timm/{name}" for name in timm.list_models()])
        raise UsageError(f"unknown encoder 'timm/{spec.name}'{near or '; timm.list_models() names all'}")
    spec.check({*TIMM_WORDS, WEIGHTS_WORD}, texts=(WEIGHTS_WORD,))
    options = dict(spec.options)
    weights = options.pop(WEIGHTS_WORD, None)
    if weights is not None and not twin:
        options["pretrained_cfg_overlay"] = {"state_dict": _read_foreign(str(weights)), "custom_load": False}
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
        raise TacitError(f"encoder timm/{spec.name}: {what}: {first_line(error)}") from error
    model.pretrained_cfg.pop("state_dict", None)  # timm keeps it beside the weights that were made of it
    return model, pretrained


def _read_foreign(path: str) -> dict[str, Any]:
    """Weights in a file of timm's formats, whatever it calls them; nothing in the file is executed.

    Raises:
        UsageError: no such file.
        TacitError: it is damaged, or needs code to be read.
    """
    from timm.models import load_state_dict

    try:
        with open_file(path):
            pass
        found: dict[str, Any] = load_state_dict(path, weights_only=True)
    except OSError as error:
        raise UsageError(f"encoder weights '{path}' are not a file: {first_line(error)}") from None
    except Exception as error:  # torch raises what pickle, zipfile and its own reader raise
        code = "it holds Python objects, which are not loaded: save its state_dict as .safetensors"
        reason = code if "weights_only" in str(error) else first_line(error)
        raise TacitError(f"encoder weights '{path}' cannot be read: {reason}") from None
    return found


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
