"""Whether a source that somebody else wrote keeps the contract of `Source`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from tacit.data.form import form_class
from tacit.data.source import UNLABELLED, Sample, Source
from tacit.errors import UsageError

_SET = ("spec", "names", "labels", "splits", "fingerprint", "skipped", "values", "groups", "table", "notes")


def check_source(source: Source) -> None:
    """Refuse a source that would fail later, or be silently wrong; our own are not looked at.

    Raises:
        UsageError: names the first thing that is missing or does not fit.
    """
    if type(source).__module__.startswith("tacit."):
        return
    found = next(_faults(source), None)
    if found is not None:
        raise UsageError(f"the source {type(source).__name__} {found}")


def _faults(source: Source) -> Iterator[str]:
    missing = [name for name in _SET if not hasattr(source, name)]
    if missing:
        yield f"has no {missing[0]}: call super().__init__(spec, names, ...) in its own"
        return
    count = len(source)
    if not count:
        yield "is empty"
        return
    if len(source.names) != count:
        yield f"has {len(source.names)} names for {count} samples"
    yield from _array("labels", source.labels, count, "i")
    if source.values is not None:
        yield from _array("values", source.values, count, "f")
    if source.groups is not None:
        yield from _array("groups", source.groups, count, "iu")
    known = source.labels[source.labels != UNLABELLED]
    if len(known) and known.min() < 0:
        yield f"has a label {known.min()}: classes are numbered from 0, and -1 means unlabelled"
    classes = source.spec.classes
    if source.spec.target == "class" and classes and len(known) and known.max() >= len(classes):
        yield f"has a label {known.max()} and {len(classes)} classes"
    for name, part in source.splits.items():
        if len(part) and not 0 <= np.min(part) <= np.max(part) < count:
            yield f"has positions outside of 0 .. {count - 1} in its split {name}"
    if not source.fingerprint:
        yield "has no fingerprint: without one a resumed run cannot tell that the data are the same"
    yield from _samples(source)


def _array(name: str, values: object, count: int, kinds: str) -> Iterator[str]:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds or values.shape != (count,):
        shape = getattr(values, "shape", type(values).__name__)
        what = "floating-point" if kinds == "f" else "whole"
        yield f"has {name} of {shape}: a numpy array ({count},) of {what} numbers is needed"


def _samples(source: Source) -> Iterator[str]:
    first = source[0]
    if not isinstance(first, Sample) or not isinstance(first.data, Tensor):
        yield f"gives {type(first).__name__}: source[i] is a tacit.Sample whose data are a tensor"
        return
    wanted = tuple(source.spec.shape)
    if tuple(first.data.shape) != wanted:
        yield f"gives data of shape {tuple(first.data.shape)}, and its spec says {wanted}"
    if lack := form_class(source.spec.modality).lacks(first):
        yield f"gives samples {lack}"
    if (first.index, first.label) != (0, int(source.labels[0])):
        yield (
            f"gives index {first.index} and label {first.label} for sample 0, and its labels say "
            f"{int(source.labels[0])}"
        )
