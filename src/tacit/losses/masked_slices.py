"""How well the embeddings of hidden slices were guessed from the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tacit.errors import UsageError


def masked_slice_loss(
    predictions: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor, *, masked_only: bool = False
) -> Tensor:
    """Masked slice prediction (Nguyen et al., 2023, arXiv 2212.01893), summed over views.

        sum over views of MSE(prediction, target) / M,   M = masked slices of a volume

    The released code takes the mean square over all slices, the visible ones too, and divides by 6 where 7
    are masked; here M is the number that is masked.

    predictions, targets: (B, N, d) of each view; targets get no gradient. mask: (B, N) bool, the same for all
        views, as many in each row. masked_only: whether the mean is over the masked slices only; the division
        stays.
    Returns a scalar of at least 0. Without a masked slice M is 1, and with `masked_only` the loss 0.

    Raises:
        UsageError: shapes that do not fit.
    """
    if not predictions or len(predictions) != len(targets):
        raise UsageError(f"{len(predictions)} predictions do not match {len(targets)} targets")
    for prediction, target in zip(predictions, targets, strict=True):
        if prediction.shape != target.shape or prediction.shape[:2] != mask.shape:
            raise UsageError(
                "predictions and targets must be (B, N, d) and the mask (B, N), not "
                f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}"
            )
    count = (mask.sum() / len(mask)).clamp(min=1)
    counted = mask if masked_only else mask.new_ones(mask.shape)
    squares = [
        ((p.float() if p.itemsize < 4 else p) - t.detach()).square().mean(2)
        for p, t in zip(predictions, targets, strict=True)
    ]
    total = sum((square * counted).sum() for square in squares)
    return total / counted.sum().clamp(min=1) / count
