"""Few values: which samples' numbers are learned from, which are held out, drawn evenly over their range."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from tacit.data.budget import (
    HELD_OUT,
    Budget,
    check_budget,
    known_within,
    pool_without,
    shared_groups,
    validated_part,
)
from tacit.data.source import UNLABELLED
from tacit.errors import UsageError
from tacit.rng import Rng

_BINS = 10  # parts of the sorted values that a draw takes from alike
_FEWEST = 4  # values: two to learn a slope from, and two to see whether it holds (our choice)


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
    check_budget(count, fraction, held_out, name="labelled")
    labels = np.where(np.isnan(values), UNLABELLED, 0)
    validated = validated_part(labels, validation)
    known = known_within(labels, within, validated, groups)
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
        notes += shared_groups(within, held, groups)
    return Budget(np.sort(learned), np.sort(held), pool_without(within, held, groups), tuple(notes))


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
