"""Checkpoints: all a run needs to go on, read without executing anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tacit.errors import TacitError
from tacit.files import replacing

_FORMAT = 1


@dataclass(slots=True)
class Checkpoint:
    """The state after `step` optimiser steps.

    probe: the best online probe until then. guard: what the guard has seen until then.
    """

    step: int
    method: dict[str, Any]
    optimizer: dict[str, Any]
    probe: float = float("-inf")
    guard: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it; the file appears whole or not at all.

        Raises:
            TacitError: it cannot be written.
        """
        state = {name: getattr(self, name) for name in self.__slots__}
        with replacing(path) as file:
            try:
                torch.save({"format": _FORMAT, **state}, file)
            except RuntimeError as error:
                # torch's writer hides a full disk behind an error of its own ("unexpected pos 832 vs 726")
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

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
