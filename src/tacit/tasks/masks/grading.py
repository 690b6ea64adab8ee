"""How well masks agree, per class: by volume (Dice, Jaccard) and by surface (HD95, ASD).

Surface distances are those of medpy's `metric.binary`, which the published tables of UA-MT, TraCoCo and their
peers are made of, but for masks that are empty: what has no surface has no distance, here NaN, while those
tables' 0 would be perfect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from tacit.data.canvas import Grid
from tacit.errors import UsageError
from tacit.evaluation.statistics import mean_interval

Mask = Tensor | np.ndarray
Empty = Literal["", "prediction", "reference", "both"]
_MEASURES = ("dice", "jaccard", "hd95", "asd")


class MaskGrade(NamedTuple):
    """How one class of one case is segmented; see `grade_mask`."""

    dice: float
    jaccard: float
    hd95: float
    asd: float
    empty: Empty = ""


class EmptyCounts(NamedTuple):
    """In how many cases of a class something is missing: the prediction, the reference, or both."""

    prediction: int
    reference: int
    both: int


@dataclass(frozen=True, slots=True)
class MaskGrades:
    """Grades of many cases.

    classes: names of those that were graded, without the background.
    cases: for each case one `MaskGrade` per class.
    unit: of the distances, "mm" or "voxels".
    dice, jaccard, hd95, asd: per class, mean over the cases where it is defined; NaN if it is in none.
    empty: per class, in how many cases something was empty.
    """

    classes: tuple[str, ...]
    cases: tuple[tuple[MaskGrade, ...], ...]
    unit: str
    dice: tuple[float, ...]
    jaccard: tuple[float, ...]
    hd95: tuple[float, ...]
    asd: tuple[float, ...]
    empty: tuple[EmptyCounts, ...]

    def mean(self, measure: str) -> float:
        """Mean over classes of dice, jaccard, hd95 or asd; NaN where no class has one."""
        return mean_of_known(getattr(self, measure))

    def _interval(self, k: int) -> str:
        """Of the mean Dice of class k over cases, in percent."""
        known = [100 * case[k].dice for case in self.cases if not np.isnan(case[k].dice)]
        if len(known) < 2:
            return "-"
        interval = mean_interval(known)
        return f"[{max(0.0, interval.low):.1f}, {min(100.0, interval.high):.1f}]"

    def __str__(self) -> str:
        """A table with one row per class and, of several, one for their mean.

        Beside the mean Dice is its 95 % interval over cases. The last columns are `empty`: the prediction,
        the reference, or both were.
        """
        measures = ["Dice %", "[95 %]", "Jaccard %", f"HD95 {self.unit}", f"ASD {self.unit}"]
        rows = [["class", *measures, "not found", "invented", "absent"]]
        for k, name in enumerate(self.classes):
            numbers = self.dice[k], self.jaccard[k], self.hd95[k], self.asd[k]
            rows.append([name, *_cells(self._interval(k), *numbers), *map(str, self.empty[k])])
        if len(self.classes) > 1:
            means = [self.mean(measure) for measure in _MEASURES]
            rows.append(["mean", *_cells("", *means), "", "", ""])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, f"({len(self.cases):,} cases)"])


def grade_masks(
    pairs: Iterable[tuple[Mask, Mask] | tuple[Mask, Mask, Grid]],
    classes: Sequence[str],
    spacing: Grid = None,
) -> MaskGrades:
    """Grades of each class in each case, and their means over cases.

    pairs: (prediction, reference), whole numbers of one shape; or with the case's own spacing as a third. An
        iterator is read once, one case at a time.
    classes: names in the order of their numbers; the first is the background and is not graded.
    spacing: distance of neighbouring voxels along each axis in mm; None counts in voxels, as published tables
        of these methods do.
    A class that neither mask of a case has leaves the case out of its means; a class that one mask lacks has
    Dice 0 and no distances. So distances are means over the cases in which something was found: read them
    together with `empty`.

    Raises:
        UsageError: no case, no class but the background, shapes differ, a value that is no class, or only
            some cases have a spacing.
    """
    if len(classes) < 2:
        raise UsageError("grading masks needs the background and one class at least; name them in classes")
    cases, units = [], set()
    for number, (prediction, reference, *own) in enumerate(pairs):
        step = own[0] if own and own[0] is not None else spacing
        units.add("voxels" if step is None else "mm")
        a, b = (_numbers(mask, len(classes), number) for mask in (prediction, reference))
        cases.append(tuple(grade_mask(a == k, b == k, step) for k in range(1, len(classes))))
    if not cases:
        raise UsageError("there is nothing to grade: no masks were given")
    if len(units) > 1:
        raise UsageError("some cases have a spacing and some have none; give one for all, or for none")
    per_class = list(zip(*cases, strict=True))
    means = {
        name: tuple(mean_of_known([getattr(grade, name) for grade in grades]) for grades in per_class)
        for name in _MEASURES
    }
    empty = tuple(
        EmptyCounts(*(sum(g.empty == field for g in grades) for field in EmptyCounts._fields))
        for grades in per_class
    )
    return MaskGrades(tuple(classes[1:]), tuple(cases), units.pop(), **means, empty=empty)


def grade_mask(prediction: Mask, reference: Mask, spacing: Grid = None) -> MaskGrade:
    """Agreement of one object with its reference; true or not 0 is the object.

    prediction, reference: of one shape, with one axis or more.
    spacing: mm per voxel along each axis; of sheared axes a matrix, column k the step along axis k. None
        counts in voxels.

    Returns, with A and B the voxels of prediction and reference, and as their surfaces those voxels that have
    a face neighbour outside of the object or of the array:
        dice: 2 |A and B| / (|A| + |B|). jaccard: |A and B| / |A or B|. Both 0 if one mask is empty, NaN if
            both are.
        hd95: 95th percentile, with linear interpolation, of the distances of each surface's voxels to the
            other surface, both directions in one set.
        asd: mean distance of the prediction's surface to the reference's: one direction only.
            Both NaN unless both masks hold something.
        empty: which mask is.

    Raises:
        UsageError: shapes differ, not one spacing above 0 per axis, or a singular matrix.
    """
    a, b = _array(prediction) != 0, _array(reference) != 0
    if a.shape != b.shape or not a.ndim:
        raise UsageError(f"prediction and reference must have one shape, got {a.shape} and {b.shape}")
    _check_grid(spacing, a.ndim)
    of_a, of_b = int(a.sum()), int(b.sum())
    nan = float("nan")
    if not of_a and not of_b:
        return MaskGrade(nan, nan, nan, nan, "both")
    if not of_a or not of_b:
        return MaskGrade(0.0, 0.0, nan, nan, "prediction" if not of_a else "reference")
    shared = int((a & b).sum())
    there, back = _surface_distances(a, b, spacing)
    return MaskGrade(
        dice=dice_score(a, b),
        jaccard=shared / (of_a + of_b - shared),
        hd95=float(np.percentile(np.concatenate([there, back]), 95)),
        asd=float(there.mean()),
    )


def dice_score(a: np.ndarray, b: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two boolean masks of one shape; NaN if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def _surface_distances(a: np.ndarray, b: np.ndarray, spacing: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each surface voxel of a to b's surface, and the other way round; neither is empty."""
    # both surfaces lie in the box around both objects, so nothing outside of it matters
    box = _box(a | b)
    a, b = a[box], b[box]
    edge_a, edge_b = a & ~binary_erosion(a), b & ~binary_erosion(b)
    if spacing is not None and np.ndim(spacing) == 2:
        return _nearest(edge_a, edge_b, np.asarray(spacing))
    # a search tree of the surfaces was 1.1 to 2 times as fast on smooth objects, and slower on noise
    there = distance_transform_edt(~edge_b, sampling=spacing)[edge_a]
    return there, distance_transform_edt(~edge_a, sampling=spacing)[edge_b]


def _nearest(edge_a: np.ndarray, edge_b: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same where axes are not at right angles, which a transform along axes cannot measure."""
    a, b = (np.argwhere(edge) @ steps.T for edge in (edge_a, edge_b))
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]


def _check_grid(spacing: Grid, axes: int) -> None:
    if spacing is None:
        return
    if np.ndim(spacing) == 2:
        steps = np.asarray(spacing)
        if steps.shape != (axes, axes) or not abs(np.linalg.det(steps)) > 0:
            raise UsageError(f"the steps of {axes} axes must be a regular {axes} x {axes} matrix")
    elif len(spacing) != axes or not all(step > 0 for step in spacing):
        raise UsageError(f"spacing must be {axes} numbers above 0, not {tuple(spacing)}")


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    found = []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))
        found.append(slice(along[0], along[-1] + 1))
    return tuple(found)


def _numbers(mask: Mask, classes: int, case: int) -> np.ndarray:
    array = _array(mask)
    if array.dtype.kind not in "iub":
        raise UsageError(f"case {case}: masks must be whole numbers, not {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= classes):
        raise UsageError(
            f"case {case}: masks must lie in 0 .. {classes - 1}, "
            f"this one goes from {array.min()} to {array.max()}"
        )
    return array


def _array(mask: Mask) -> np.ndarray:
    return mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)


def mean_of_known(values: Iterable[float]) -> float:
    """Over those that are not NaN; NaN if none is left."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _cells(interval: str, dice: float, jaccard: float, hd95: float, asd: float) -> list[str]:
    texts = f"{100 * dice:.1f}", interval, f"{100 * jaccard:.1f}", f"{hd95:.2f}", f"{asd:.2f}"
    return ["-" if text == "nan" else text for text in texts]
