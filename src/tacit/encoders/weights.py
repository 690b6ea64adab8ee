"""Weights that anybody can have written: of the shapes and kinds that a module has, and finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from tacit.checks import shortly
from tacit.files import utf8_path
from tacit.untrusted import open_file

_CONSTANT = "num_batches_tracked"  # the one whole number that training changes
_FLOATS = ("F", "BF")
"""How the names of safetensors' dtypes begin that are floats: F64, F32, F16, BF16, F8_E4M3."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of weights holds, by its header. size: of the file, in bytes."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    size: int


def read_header(path: Path) -> Header:
    """Names, shapes and dtypes in a safetensors file; no weight is read.

    Raises:
        OSError: there is no regular file, or it may not be read.
        SafetensorError: it is damaged.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
    with utf8_path(path) as place, safe_open(place, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118, it is not a dict
        shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
        return Header(shapes, {name: each.get_dtype() for name, each in slices.items()}, size)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name; mapped, so that those that nobody looks at take no memory.

    Raises:
        OSError, SafetensorError: as `read_header`.
    """
    with open_file(path):
        pass
    with utf8_path(path) as place, safe_open(place, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def check_header(header: Header, module: nn.Module) -> None:
    """Refuse weights of other names, shapes or kinds than a module has.

    Raises:
        ValueError: names the first one.
    """
    own = module.state_dict()
    if own.keys() != header.shapes.keys():
        more, less = sorted(header.shapes.keys() - own.keys()), sorted(own.keys() - header.shapes.keys())
        said = f"it has {shortly(more[0])}, which the card's encoder has not" if more else ""
        raise ValueError(said or f"it lacks {shortly(less[0])}, which the card's encoder has")
    for name, tensor in own.items():
        if tuple(tensor.shape) != header.shapes[name]:
            found, wanted = shortly(list(header.shapes[name])), list(tensor.shape)
            raise ValueError(f"its {name} is {found}, and the card wants {wanted}")
        if header.dtypes[name].startswith(_FLOATS) != tensor.is_floating_point():
            kind = "real" if tensor.is_floating_point() else "whole"
            raise ValueError(f"its {name} has the type {header.dtypes[name]}, and must have {kind} numbers")


def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a module whose `check_header` they passed.

    Whole numbers that training does not change, such as tables of positions, must be those of the module.

    Raises:
        ValueError: numbers that are not finite, negative variances, or other tables.
    """
    for name, tensor in module.state_dict().items():
        found = weights[name]
        if tensor.is_floating_point():
            if not found.to(tensor.dtype).isfinite().all():
                raise ValueError(f"its {name} has values that are not finite")
        elif name.endswith(_CONSTANT):
            if not (found >= 0).all():
                raise ValueError(f"its {name} is negative, and must be a count")
        elif not found.equal(tensor):
            raise ValueError(f"its {name} has other values than the card's encoder")
    for name, part in module.named_modules():
        if isinstance(part, _NormBase) and part.running_var is not None:
            variance = f"{name}.running_var".removeprefix(".")
            if not (weights[variance] >= 0).all():
                raise ValueError(f"its {variance} has negative values, and must have variances")
    module.load_state_dict(dict(weights))
