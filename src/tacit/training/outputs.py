"""What a method's heads put out in the step under way, without asking the method."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from tacit.evaluation.collapse import feature_std
from tacit.methods.base import Method


class Outputs:
    """Holds on to the last (B, D) output of every trained module that stands beside the encoder.

    Projectors and predictors are such modules. Nothing is computed until `std` is asked for.
    """

    def __init__(self, method: Method) -> None:
        self._last: dict[str, Tensor] = {}
        for name, child in method.named_children():
            trained = any(p.requires_grad for p in child.parameters())
            if child is not method.encoder and trained:
                child.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 2 and len(output) > 1:
            self._last[name] = output.detach()

    def std(self) -> dict[str, float]:
        """`feature_std` of each: near 1 where the outputs spread evenly, 0 where all are equal."""
        return {name: feature_std(output.float()) for name, output in self._last.items()}
