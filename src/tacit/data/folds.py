"""Parts of a source for cross-validation, which never split a group."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedGroupKFold

from tacit.errors import UsageError, unknown
from tacit.rng import Rng

Fold = tuple[np.ndarray, np.ndarray]
"""Positions to learn from and to test on, ascending."""


def folds_of(
    labels: np.ndarray,
    groups: np.ndarray | None,
    table: dict[str, np.ndarray],
    by: int | str,
    rng: Rng,
) -> list[Fold]:
    """Folds of N samples; each sample is tested once, and no group is on both sides of a fold.

    labels: (N,) class numbers; if all are equal, folds are not stratified. groups: (N,) or None. table:
        columns of N values. by: the number of folds, or the column whose values are tested one after the
        other, such as the site.

    Raises:
        UsageError: an unknown column, one with a single value, a group with several of its values, or fewer
            groups than folds.
    """
    together = np.arange(len(labels)) if groups is None else groups
    if isinstance(by, str):
        if by not in table:
            raise unknown("column", by, table)
        return _by_value(np.asarray(table[by]), by, groups)
    count = len(np.unique(together))
    if not 2 <= by <= count:
        what = "samples" if groups is None else "groups"
        raise UsageError(f"{by} folds of {count} {what}: at least 2 folds, and no more than there are {what}")
    seed = rng("folds").seed % 2**32
    if len(np.unique(labels)) > 1:
        splitter = StratifiedGroupKFold(by, shuffle=True, random_state=seed)
    else:
        splitter = GroupKFold(by, shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels, together))


def _by_value(values: np.ndarray, column: str, groups: np.ndarray | None) -> list[Fold]:
    numbers = np.unique(values, return_inverse=True)[1]
    if numbers.max(initial=0) == 0:
        raise UsageError(f"the column '{column}' has one value: there is nothing to learn from beside it")
    if groups is not None:
        pairs = np.unique(np.stack([groups, numbers]), axis=1)[0]
        if len(several := pairs[:-1][np.diff(pairs) == 0]):
            raise UsageError(
                f"{len(np.unique(several))} groups have several values of '{column}': a group would be on "
                "both sides of a fold"
            )
    return list(LeaveOneGroupOut().split(numbers, groups=numbers))
