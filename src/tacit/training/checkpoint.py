"""Checkpoints: all a run needs to go on, read without executing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tacit.errors import TacitError
from tacit.files import replacing

_FORMAT = 1


@dataclass(slots=True)
class Checkpoint:
    """The state after `step` optimiser steps. `probe` is the best online probe until then."""

    step: int
    method: dict[str, Any]
    optimizer: dict[str, Any]
    probe: float = float("-inf")

    def save(self, path: Path) -> None:
        """Write it; the file appears whole or not at all."""
        state = {name: getattr(self, name) for name in self.__slots__}
        with replacing(path) as file:
            torch.save({"format": _FORMAT, **state}, file)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read it, onto the CPU.

        Raises:
            TacitError: the file is damaged or of another version.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = state.pop("format", None)
        except Exception as error:
            # torch raises what pickle, zipfile and its own reader raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TacitError(f"the checkpoint {path} is damaged: {reason}") from None
        if found != _FORMAT:
            raise TacitError(f"the checkpoint {path} has format {found}; this version reads {_FORMAT}")
        return cls(**state)
