"""Names of the classes of masks, from `dataset.json` files of a Decathlon or of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tacit.data.volume.files import LARGEST_LABEL
from tacit.errors import UsageError
from tacit.untrusted import read_json

TABLE = "dataset.json"
_IGNORE = "ignore"


class ClassNames(NamedTuple):
    """What a table says.

    names: by value of the masks. ignored: the value of voxels that nobody labelled, or None. notes:
    what a reader could not expect.
    """

    names: dict[int, str]
    ignored: int | None = None
    notes: tuple[str, ...] = ()


def read_class_names(folder: Path, deeper: Sequence[str] = ()) -> ClassNames:
    """The names that `dataset.json` in a folder gives; where it has none, those of one further down.

    deeper: paths of such files below the folder.

    Raises:
        UsageError: one cannot be read, or two of them differ.
    """
    if (folder / TABLE).is_file():
        return _read(folder / TABLE)
    found = {place: names for place in deeper if (names := _read(folder / place)) != ClassNames({})}
    if not found:
        return ClassNames({})
    first, names = next(iter(found.items()))
    for place, other in found.items():
        if other != names:
            raise UsageError(
                f"{folder / first} and {folder / place} give other names to the values of masks: open one of "
                f"these folders, or write one {TABLE} for all into {folder}"
            )
    return names._replace(notes=(*names.notes, f"class names are those of {first}"))


def _read(path: Path) -> ClassNames:
    try:
        labels = read_json(path, encoding="utf-8-sig").get("labels", {})
        return _names(labels)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        cause = str(error).splitlines()[0]
        raise UsageError(f"{path}: its labels cannot be read ({cause}); fix or remove it") from None


def _names(labels: Any) -> ClassNames:
    """Of `{"0": name}`, `{name: 0}`, `[name, name]`, or `{name: [1, 2]}`, which are regions.

    Raises:
        ValueError, AttributeError, TypeError: something else.
    """
    if isinstance(labels, list):
        labels = {str(value): name for value, name in enumerate(labels)}
    labels = {key: value[0] if _is_one(value) else value for key, value in labels.items()}
    if any(isinstance(value, list) for value in labels.values()):
        return _regions(labels)
    named = _by_value(labels)
    if len(set(named.values())) < len(labels) or "" in named.values():
        raise ValueError("names must be there and differ")
    ignored = _take_ignored(named)
    _check(named)
    if named:
        named.setdefault(0, "background")
    return ClassNames(named, ignored)


def _regions(labels: Mapping[str, Any]) -> ClassNames:
    """Of unions of classes, which give no names to the classes; `ignore` is a value all the same."""
    regions = [(name, value) for name, value in labels.items() if isinstance(value, list)]
    listed = "; ".join(f"{name} of {', '.join(map(str, values))}" for name, values in regions[:4])
    single = {name: value for name, value in labels.items() if not isinstance(value, list)}
    return ClassNames(
        {},
        _take_ignored(_by_value(single)),
        (f"{TABLE} names regions ({listed}): the values of the masks are learned, without names",),
    )


def _take_ignored(named: dict[int, str]) -> int | None:
    """The value that is called as one to be ignored, which is no class and leaves the names."""
    ignored = next((value for value, name in named.items() if name.lower() == _IGNORE), None)
    if ignored is not None:
        del named[ignored]
    return ignored


def _is_one(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _by_value(labels: Mapping[str, Any]) -> dict[int, str]:
    """Whichever side has the numbers."""
    pairs = list(labels.items())
    if not all(_number(key) is not None for key in labels) or all(
        _number(value) is not None for value in labels.values()
    ):
        pairs = [(value, key) for key, value in pairs]
    wrong = next((value for value, _ in pairs if _number(value) is None), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is not a whole number")
    if not all(isinstance(name, str | int) for _, name in pairs):
        raise ValueError("names must be texts")
    return {_number(value): str(name) for value, name in pairs}  # type: ignore[misc]  # none is None


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def _check(named: Mapping[int, str]) -> None:
    for value, name in named.items():
        if not 0 <= value <= LARGEST_LABEL:
            raise ValueError(f"{name} is {value}: values go from 0 to {LARGEST_LABEL}")
        if value and name.lower() == "background":
            raise ValueError(f"the background is {value}: it must be 0")
