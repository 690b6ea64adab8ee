"""The head of self-distillation with tokens: from features to logits over prototypes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.errors import UsageError


class HeadOutput(NamedTuple):
    """Logits over P prototypes: cls (B, P), enc (B, N, P), dec (B, M, P) or None where nobody asked."""

    cls: Tensor
    enc: Tensor
    dec: Tensor | None


class DistillationHead(nn.Module):
    """Pooled features and two maps to logits over prototypes (Jiang et al., 2023; as in the released code).

        adapters     Linear to `width` for tokens of the encoder and of the decoder, of the widths they have
        shared       width - hidden - hidden - bottleneck, GELU, no normalisation
        last layers  the vector scaled to length 1, then products with P unit vectors, no bias

    The last layer for pooled features and that for tokens are two, or one with `shared_last`. (In the
    released code the student has two and the teacher one, so that one of the student's is never followed:
    an oversight that we do not copy.)

    Weights begin as a truncated normal of deviation 0.02, or 1 / sqrt(inputs) if that is more (our choice):
    for the 2048 inputs of the paper that is the same, and a narrow head's vectors would else vanish before
    they are scaled to length 1, and its gradients explode. For the same reason the adapters' biases begin as
    N(0, 0.3^2): ReLU leaves tokens of zeros, which would have no direction. Biases of the rest begin as 0.

    width: of pooled features. enc, dec: widths of the tokens; dec 0 makes no adapter for them.
    prototypes: P, 512 in the paper. hidden, bottleneck: 2048 and 256 in the paper.
    """

    def __init__(
        self,
        width: int,
        enc: int,
        dec: int,
        prototypes: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
        shared_last: bool = False,
    ) -> None:
        super().__init__()
        if min(width, enc, prototypes, hidden, bottleneck) < 1:
            raise UsageError(
                "a distillation head needs widths, hidden, bottleneck and prototypes of at least 1, not "
                f"{width}, {enc}, {hidden}, {bottleneck} and {prototypes}"
            )
        self.adapt_enc = nn.Linear(enc, width)
        self.adapt_dec = nn.Linear(dec, width) if dec else None
        self.shared = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last_cls = nn.Parameter(torch.empty(prototypes, bottleneck))
        self.last_token = self.last_cls if shared_last else nn.Parameter(torch.empty(prototypes, bottleneck))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=max(0.02, module.in_features**-0.5))
                nn.init.zeros_(module.bias)
        for adapter in (self.adapt_enc, self.adapt_dec):
            if adapter is not None:
                nn.init.normal_(adapter.bias, std=0.3)
        for last in (self.last_cls, self.last_token):
            nn.init.trunc_normal_(last, std=0.02)

    def forward(self, cls: Tensor, enc: Tensor, dec: Tensor | None, *, hold_last: bool = False) -> HeadOutput:
        """Features (B, width), tokens (B, N, enc) and (B, M, dec) -> logits in [-1, 1].

        hold_last: the last layers get a gradient of zeros, so that they stay as they are (zeros rather than
            none, because training on several processes wants a gradient for every parameter).
        """
        tokens = None
        if dec is not None and self.adapt_dec is not None:
            tokens = self._logits(self.adapt_dec(dec), self.last_token, hold_last)
        return HeadOutput(
            self._logits(cls, self.last_cls, hold_last),
            self._logits(self.adapt_enc(enc), self.last_token, hold_last),
            tokens,
        )

    def _logits(self, x: Tensor, last: Tensor, hold: bool) -> Tensor:
        if hold:
            last = last.detach() + 0 * last
        return F.linear(F.normalize(self.shared(x), dim=-1), F.normalize(last, dim=1))
