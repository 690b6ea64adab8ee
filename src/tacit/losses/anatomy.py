"""InfoNCE of matched places in two views of one volume: what an anatomical embedding learns from."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.errors import UsageError
from tacit.losses.consistency import wide


def contrast_of_matches(
    anchor: Tensor,
    positive: Tensor,
    candidates: Tensor,
    allowed: Tensor,
    temperature: float = 0.5,
    *,
    hardness: Tensor | None = None,
    hardest: int | None = None,
    lottery: Tensor | None = None,
    keep: int | None = None,
) -> Tensor:
    """The same place in the other view must be found among other places.

        mean over anchors of  -<a, p>/t + log( exp(<a, p>/t) + sum over negatives n of exp(<a, n>/t) )

    The loss of SAM (Yan et al., 2022, arXiv 2012.02383; hard negatives and temperature as in its released
    code): of the allowed candidates the `hardest` ones are taken, and of those `keep` at random.

    anchor, positive: (A, D) unit vectors, row i of both at one place. candidates: (N, D) unit vectors.
    allowed: (A, N) bool, which candidates are another place than the anchor's.
    hardness: (A, N); the larger, the harder. Default: the similarity <a, n>. No gradient.
    hardest: how many candidates are left of all; None leaves all that are allowed.
    lottery: (A, `hardest`) random numbers; the `keep` largest win. The caller draws them.
    Returns a scalar of at least 0, in nats; 0 for an anchor with no allowed candidate.

    Raises:
        UsageError: shapes do not fit, or there is no anchor.
    """
    pairs = (len(anchor), len(candidates))
    if anchor.ndim != 2 or anchor.shape != positive.shape or not len(anchor) or allowed.shape != pairs:
        raise UsageError(
            "matches: (A, D) anchors and positives with A at least 1, and (A, N) allowed, got "
            f"{tuple(anchor.shape)}, {tuple(positive.shape)} and {tuple(allowed.shape)}"
        )
    anchor, positive, candidates = wide(anchor), wide(positive), wide(candidates)
    found = (anchor * positive).sum(1) / temperature
    negatives = (anchor @ candidates.T / temperature).masked_fill(~allowed, -torch.inf)
    if hardest is not None:
        rank = negatives.detach() if hardness is None else wide(hardness).masked_fill(~allowed, -torch.inf)
        chosen = rank.topk(min(hardest, pairs[1]), dim=1).indices
        if keep is not None and lottery is not None and keep < chosen.shape[1]:
            winners = lottery[:, : chosen.shape[1]].topk(keep, dim=1).indices
            chosen = chosen.gather(1, winners)
        negatives = negatives.gather(1, chosen)
    return (torch.cat([found[:, None], negatives], 1).logsumexp(1) - found).mean()
