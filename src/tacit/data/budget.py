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
    check_budget(per_class, fraction, held_out)
    validated = validated_part(labels, validation)
    known = known_within(labels, within, validated, groups)
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
        notes += shared_groups(within, held, groups)
    return Budget(learned, held, pool_without(within, held, groups), tuple(notes))


def validated_part(labels: np.ndarray, validation: np.ndarray | None) -> np.ndarray:
    """The labelled part of a validation split, ascending; empty without one."""
    return np.empty(0, np.int64) if validation is None else validation[labels[validation] != UNLABELLED]


def known_within(
    labels: np.ndarray, within: np.ndarray, validated: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    """Whose labels may be learned from: none of a group that validates."""
    known = within[labels[within] != UNLABELLED]
    return known if groups is None else known[~np.isin(groups[known], groups[validated])]


def pool_without(within: np.ndarray, held: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
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
    check_budget(count, fraction, held_out, name="labelled")
    validated = validated_part(labels, validation)
    known = known_within(labels, within, validated, groups)
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
        notes += shared_groups(within, held, groups)
    return Budget(np.sort(learned), np.sort(held), pool_without(within, held, groups), tuple(notes))


def check_budget(
    count: int | None, fraction: float | None, held_out: float, name: str = "labels_per_class"
) -> None:
    """Refuse two budgets at once, or one out of range. name: of the argument that counts.

    Raises:
        UsageError: says which.
    """
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


def shared_groups(within: np.ndarray, held: np.ndarray, groups: np.ndarray | None) -> list[str]:
    """A note where groups of the validation split are left out of learning."""
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
