"""Few labels: which samples lend theirs to learning, which to calibration, and which lend none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tacit.data.labels import stratified_split
from tacit.data.source import UNLABELLED
from tacit.errors import UsageError
from tacit.rng import Rng

HELD_OUT = 0.25
"""Held-out labels per label that is learned from: a validation set of 25 % of the labels of each class
(Nguyen et al., 2020, who use it to choose the checkpoint)."""
_BINS = 10  # parts of the sorted values that a draw takes from alike
_FEWEST = 4  # values: two to learn a slope from, and two to see whether it holds (our choice)


@dataclass(frozen=True, slots=True)
class Budget:
    """Positions of a source, ascending int64.

    labelled: whose labels are learned from.
    held_out: whose labels calibrate and validate; no gradient comes from them.
    pool: what is learned from without labels: everything but the held-out samples and their groups; the
        labelled ones are in it, too.
    notes: what a user should know of the draw, one line each.
    """

    labelled: np.ndarray
    held_out: np.ndarray
    pool: np.ndarray
    notes: tuple[str, ...] = ()


def draw_budget(
    labels: np.ndarray,
    within: np.ndarray,
    rng: Rng,
    *,
    per_class: int | None = None,
    fraction: float | None = None,
    held_out: float = HELD_OUT,
    validation: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> Budget:
    """Choose labels, the same for the same `rng`.

    Without a budget all labels are used, and the share held_out / (1 + held_out) of each class is held
    out. With one, held-out labels come on top of it. A class with fewer samples than asked for lends all
    it has, first to learning. No group has a held-out sample and one that is learned from.

    Args:
        labels: (N,) int64, -1 for unlabelled.
        within: positions that may be learned from, such as the training split.
        rng: where the draws come from.
        per_class: labels of each class to learn from, at least 1.
        fraction: the share of each class's labels to learn from, above 0 and at most 1.
        held_out: held-out labels per label that is learned from; 0 holds out none.
        validation: positions of a validation split: then these are held out, and none of `within`.
        groups: (N,) int64, such as the patient of each image; samples of one group stay on one side.
        classes: names for messages.

    Raises:
        UsageError: both kinds of budget, one out of range, or labels of fewer than two classes.
    """
    _check(per_class, fraction, held_out)
    validated = _validated(labels, validation)
    known = _known(labels, within, validated, groups)
    _check_classes(labels[known], classes)
    if len(validated):
        held_out = 0.0
    wanted = _wanted(labels[known], per_class, fraction, held_out)
    spare = _spare_groups(labels, known, wanted, held_out, groups, rng("groups"))
    taken: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    notes = []
    for c, count in wanted.items():
        members = known[labels[known] == c]
        if groups is not None and held_out:
            aside = np.isin(groups[members], spare)
            first, second = members[~aside], members[aside]
        else:
            first = second = members
        first = rng("labelled", c).numpy().permutation(first)
        rest = ceil(held_out * count)
        taken.append(first[:count])
        if groups is None:
            kept.append(first[count : count + rest])
        else:
            kept.append(rng("held out", c).numpy().permutation(second)[:rest] if rest else second[:0])
        if len(taken[-1]) < count and per_class is not None:
            notes.append(
                f"class '{_name(classes, c)}' contributes {len(taken[-1])} label(s), {count} were asked for: "
                "all it has"
            )
    learned, held = np.sort(np.concatenate(taken)), np.sort(np.concatenate(kept))
    if len(np.unique(labels[learned])) < 2:
        raise UsageError("the groups leave labels of one class only to learn from: label more groups")
    if len(validated):
        held = validated
        notes += _shared_groups(within, held, groups)
    return Budget(learned, held, _pool(within, held, groups), tuple(notes))


def _validated(labels: np.ndarray, validation: np.ndarray | None) -> np.ndarray:
    """The labelled part of a validation split, ascending; empty without one."""
    return np.empty(0, np.int64) if validation is None else validation[labels[validation] != UNLABELLED]


def _known(
    labels: np.ndarray, within: np.ndarray, validated: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    """Whose labels may be learned from: none of a group that validates."""
    known = within[labels[within] != UNLABELLED]
    return known if groups is None else known[~np.isin(groups[known], groups[validated])]


def _pool(within: np.ndarray, held: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """What is learned from without labels: nothing that is held out, nor its group."""
    pool = np.setdiff1d(within, held)
    return pool if groups is None else pool[~np.isin(groups[pool], groups[held])]


def draw_masks(
    labels: np.ndarray,
    within: np.ndarray,
    rng: Rng,
    *,
    count: int | None = None,
    fraction: float | None = None,
    held_out: float = HELD_OUT,
    validation: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Budget:
    """`draw_budget` for labels that are masks: so many volumes, whatever their masks show.

    Args:
        labels: (N,) int64, -1 where there is no mask.
        within: positions that may be learned from, such as the training split.
        rng: where the draws come from.
        count: masks to learn from, at least 1.
        fraction: the same as a share of those there are.
        held_out: held-out masks per mask that is learned from; 0 holds out none.
        validation: positions of a validation split: then these are held out, and none of `within`.
        groups: (N,) int64, such as the patient of each volume; volumes of one group stay on one side.

    Raises:
        UsageError: no mask at all, both kinds of budget, or one out of range.
    """
    _check(count, fraction, held_out, name="labelled")
    validated = _validated(labels, validation)
    known = _known(labels, within, validated, groups)
    if not len(known):
        raise UsageError(
            "the data have no masks to learn from (or only of groups that validate): put them beside the "
            "volumes, or name --masks"
        )
    notes = []
    held_out = 0.0 if len(validated) else held_out
    if count is None:
        share = 1 / (1 + held_out) if fraction is None else fraction
        count = max(1, round(share * len(known)))
    order = rng("masks").numpy().permutation(known)
    if groups is not None:  # whole groups one after the other, in the order of their first members
        first = {group: k for k, group in reversed(list(enumerate(groups[order].tolist())))}
        order = order[np.argsort([first[group] for group in groups[order].tolist()], kind="stable")]
    learned, rest = order[:count], order[count:]
    if len(learned) < count:
        notes.append(
            f"{len(learned)} volume(s) with masks are learned from, {count} were asked for: all there are"
        )
    if groups is not None:
        rest = rest[~np.isin(groups[rest], groups[learned])]
    held = rest[: ceil(held_out * len(learned))]
    if len(validated):
        held = validated
        notes += _shared_groups(within, held, groups)
    return Budget(np.sort(learned), np.sort(held), _pool(within, held, groups), tuple(notes))


def draw_values(
    values: np.ndarray,
    within: np.ndarray,
    rng: Rng,
    *,
    count: int | None = None,
    fraction: float | None = None,
    held_out: float = HELD_OUT,
    validation: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Budget:
    """`draw_budget` for labels that are numbers: small and large values are drawn alike.

    The known values are sorted and cut into parts of equal size, as many as there are values to learn
    from but at most ten (our choice: deciles), and every part gives as many values as the others, to
    within one. Held-out values are spread over the same parts. With groups, whole groups are sorted, by
    their mean, and drawn one after the other. Without a budget, learned values end where a group ends,
    so that other groups are left to hold out.

    Args:
        values: (N,) float64, NaN where there is none.
        within: positions that may be learned from, such as the training split.
        rng: where the draws come from.
        count: values to learn from, at least 1; exactly so many are, if there are so many.
        fraction: the same as a share of those there are.
        held_out: held-out values per value that is learned from; 0 holds out none.
        validation: positions of a validation split: then these are held out, and none of `within`.
        groups: (N,) int64, such as the patient of each sample; samples of one group stay on one side.

    Raises:
        UsageError: fewer than four values, the same value everywhere, among all or among those drawn, both
            kinds of budget, or one out of range.
    """
    _check(count, fraction, held_out, name="labelled")
    labels = np.where(np.isnan(values), UNLABELLED, 0)
    validated = _validated(labels, validation)
    known = _known(labels, within, validated, groups)
    _check_values(values[known])
    held_out = 0.0 if len(validated) else held_out
    asked = count
    if count is None:
        share = 1 / (1 + held_out) if fraction is None else fraction
        count = max(1, round(share * len(known)))
    together = np.arange(len(values)) if groups is None else groups
    order, ends = _spread(values, known, together, count, rng("values").numpy())
    if asked is None and fraction is None and held_out:
        ends = ends[:-1] if len(ends) > 1 else ends  # one group is left
        count = int(ends[np.abs(ends - count).argmin()])
    learned, rest = order[:count], order[count:]
    rest = rest[~np.isin(together[rest], together[learned])]
    held = rest[: ceil(held_out * len(learned))]
    _check_drawn(values[learned])
    notes = []
    if asked is not None and len(learned) < asked:
        notes.append(f"{len(learned)} value(s) are learned from, {asked} were asked for: all there are")
    if held_out and not len(held):
        notes.append(f"no value{'' if groups is None else ' of another group'} is left to hold out")
    if groups is not None:
        notes += _one_value_per_group(values, known, groups, learned)
    if len(validated):
        held = validated
        notes += _shared_groups(within, held, groups)
    return Budget(np.sort(learned), np.sort(held), _pool(within, held, groups), tuple(notes))


def _spread(
    values: np.ndarray, known: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The known positions, group by group, in an order of which every beginning is spread over the values.

    Returns the order, and how many of its positions are over at the end of each group, ascending.
    """
    _, which, sizes = np.unique(groups[known], return_inverse=True, return_counts=True)
    means = np.bincount(which, values[known]) / sizes
    ascending = rng.permutation(len(sizes))  # so that equal values are in random order
    ascending = ascending[np.argsort(means[ascending], kind="stable")]
    bins = min(_BINS, max(1, round(count * len(sizes) / len(known))))
    turn = np.empty(len(sizes))
    for part in np.array_split(ascending, bins):
        turn[rng.permutation(part)] = np.arange(len(part)) + rng.random(len(part))
    rank = np.argsort(np.argsort(turn))
    within = rng.permutation(len(known))
    order = within[np.argsort(rank[which[within]], kind="stable")]
    return known[order], np.cumsum(sizes[np.argsort(rank)])


def _check_values(known: np.ndarray) -> None:
    if not len(known):
        raise UsageError(
            "the data have no values to learn from (or only of groups that validate): name a CSV with "
            "--values"
        )
    if len(known) < _FEWEST:
        raise UsageError(
            f"the data have {len(known)} value(s) to learn from, and {_FEWEST} are needed: label more samples"
        )
    if (known == known[0]).all():
        raise UsageError(
            f"all {len(known)} values are {known[0]:g}, so there is nothing to learn: name another --column"
        )


def _check_drawn(learned: np.ndarray) -> None:
    if (learned == learned[0]).all():
        raise UsageError(
            f"the {len(learned)} value(s) drawn to learn from are all {learned[0]:g}: learn from more labels"
        )


def _one_value_per_group(
    values: np.ndarray, known: np.ndarray, groups: np.ndarray, learned: np.ndarray
) -> list[str]:
    count = len(np.unique(groups[learned]))
    pairs = np.unique(np.stack([groups[known].astype(float), values[known]]), axis=1)
    if pairs.shape[1] > len(np.unique(groups[known])) or count == len(learned):
        return []
    return [
        f"values are the same for all samples of a group: the {count} groups count, not the {len(learned)} "
        "samples"
    ]


def _check(
    count: int | None, fraction: float | None, held_out: float, name: str = "labels_per_class"
) -> None:
    if count is not None and fraction is not None:
        raise UsageError(f"{name} and label_fraction are two ways to say one thing: give one of them")
    if count is not None and count < 1:
        raise UsageError(f"{name} must be at least 1, not {count}")
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"label_fraction must lie above 0 and be at most 1, not {fraction}")
    if not 0 <= held_out <= 1:
        raise UsageError(f"held_out must lie in [0, 1], not {held_out}")


def _check_classes(labels: np.ndarray, classes: Sequence[str]) -> None:
    found = np.unique(labels)
    if not len(found):
        raise UsageError(
            "the data have no labels to learn from: use one folder per class, or name a CSV with --labels; "
            "without any, learn with a self-supervised method (tacit methods)"
        )
    if len(found) < 2:
        raise UsageError(
            f"all {len(labels)} labels are '{_name(classes, found[0])}': a classifier needs two classes"
        )


def _wanted(
    labels: np.ndarray, per_class: int | None, fraction: float | None, held_out: float
) -> dict[int, int]:
    """How many labels of each class are learned from."""
    counts = {int(c): int((labels == c).sum()) for c in np.unique(labels)}
    if per_class is not None:
        return dict.fromkeys(counts, per_class)
    share = 1 / (1 + held_out) if fraction is None else fraction
    return {c: max(1, round(share * n)) for c, n in counts.items()}


def _spare_groups(
    labels: np.ndarray,
    known: np.ndarray,
    wanted: dict[int, int],
    held_out: float,
    groups: np.ndarray | None,
    rng: Rng,
) -> np.ndarray:
    """Groups for the held-out labels: drawn until each class has enough, but never a class's last."""
    if groups is None or not held_out:
        return np.zeros(0, np.int64)
    missing = {c: ceil(held_out * n) for c, n in wanted.items()}
    left = {c: set(groups[known[labels[known] == c]].tolist()) for c in wanted}
    aside = []
    for group in rng.numpy().permutation(np.unique(groups[known])).tolist():
        held = labels[known[groups[known] == group]]
        useful = any(missing[int(c)] > 0 for c in held)
        if not useful or any(len(left[c]) < 2 for c in left if group in left[c]):
            continue
        aside.append(group)
        for c in left:
            left[c].discard(group)
            missing[c] -= int((held == c).sum())
    return np.array(aside, np.int64)


def _shared_groups(within: np.ndarray, held: np.ndarray, groups: np.ndarray | None) -> list[str]:
    if groups is None:
        return []
    count = len(np.intersect1d(groups[within], groups[held]))
    return [f"{count} group(s) of the validation split are left out of learning"] if count else []


def _name(classes: Sequence[str], c: int) -> str:
    return classes[c] if c < len(classes) else str(c)


def group_split(
    labels: np.ndarray, groups: np.ndarray | None, fractions: Sequence[float], rng: Rng
) -> tuple[np.ndarray, ...]:
    """`stratified_split`, but with whole groups: no group is in two parts.

    Groups are dealt out one by one, in random order but the largest first, each to the part that is
    furthest behind its share of the classes which the group holds. (scikit-learn's StratifiedGroupKFold
    makes folds of one size only.)

    labels: (N,) int64, -1 in no part. groups: (N,) int64; None splits samples.
    Returns positions of each part, ascending.
    """
    if groups is None:
        return stratified_split(labels, fractions, rng)
    known = np.flatnonzero(labels != UNLABELLED)
    names, which = np.unique(groups[known], return_inverse=True)
    _, number = np.unique(labels[known], return_inverse=True)
    counts = np.zeros((len(names), number.max(initial=0) + 1))
    np.add.at(counts, (which, number), 1)
    shares = np.append(np.asarray(fractions, float), max(0.0, 1 - sum(fractions)))
    wanted = shares[:, None] * counts.sum(0)
    order = rng("groups").numpy().permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    part_of = np.zeros(len(names), np.int64)
    for group in order:
        behind = (wanted / np.maximum(counts.sum(0), 1)) @ counts[group]
        part_of[group] = int(np.argmax(np.where(shares > 0, behind, -np.inf)))
        wanted[part_of[group]] -= counts[group]
    return tuple(known[part_of[which] == part] for part in range(len(fractions)))


def value_split(
    values: np.ndarray,
    within: np.ndarray,
    groups: np.ndarray | None,
    fractions: Sequence[float],
    rng: Rng,
) -> tuple[np.ndarray, ...]:
    """Positions with values in parts that have small and large values alike; no group is in two parts.

    As in `draw_values`, groups are sorted by their mean. Parts end where a group ends, nearest to the sizes
    that are wanted, and none is empty where there are as many groups as parts.

    values: (N,) float64, NaN where there is none. within: positions to split. groups: (N,) int64; None splits
    samples. fractions: of each part, above 0, with the sum 1.
    Returns positions of each part, ascending.
    """
    known = within[~np.isnan(values[within])]
    together = np.arange(len(values)) if groups is None else groups
    smallest = max(1, round(min(fractions) * len(known)))
    order, ends = _spread(values, known, together, smallest, rng.numpy())
    cuts = [0]  # in groups
    for p, wanted in enumerate(np.cumsum(fractions)[:-1] * len(known)):
        nearest = int(np.abs(ends - wanted).argmin()) + 1
        left = len(ends) - (len(fractions) - 1 - p)  # a group for each of the parts to come
        cuts.append(max(cuts[-1], min(max(nearest, cuts[-1] + 1), left)))
    at = [int(ends[k - 1]) if k else 0 for k in cuts[1:]]
    return tuple(np.sort(part) for part in np.split(order, at))
