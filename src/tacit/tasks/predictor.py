"""A predictor on disk: the head on a run's encoder, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tacit.errors import TacitError, UsageError
from tacit.files import without_nan, write_atomically

WEIGHTS, CARD = "predictor.safetensors", "predictor.json"
_BEFORE = {"classifier": "class", "segmenter": "mask"}
"""Names of the files in older runs, and the target that they stand for."""


@dataclass(slots=True, kw_only=True)
class PredictorCard:
    """What stands beside the weights as `predictor.json`; a kind of target adds what it needs.

    held_out: number of labels that were held out. grades: how the predictor did on them.
    """

    held_out: int = 0
    grades: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `asdict`, with tuples for lists; unknown keys, of a later version, are ignored."""
        own = {f.name for f in fields(cls)}
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data.items()
            if name in own
        }
        return cls(**known)


@dataclass(slots=True)
class Predictor:
    """A learned network, as a run folder has it."""

    encoder: nn.Module
    head: nn.Module
    card: Any  # the kind's own `PredictorCard`

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.head.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """The same on `device`, in eval mode."""
        return type(self)(self.encoder.to(device).eval(), self.head.to(device).eval(), self.card)

    def save(self, folder: Path, target: str) -> None:
        """Write the head and the card; the encoder is the run's. target: kind of the labels."""
        state = {k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}
        write_atomically(folder / WEIGHTS, save(state))
        text = json.dumps({"target": target, **without_nan(asdict(self.card))}, indent=2)
        write_atomically(folder / CARD, text.encode())


def read_predictor(folder: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]] | None:
    """The kind of target, the card and the head's state; None if the run learned no labels.

    Raises:
        TacitError: the files are damaged.
    """
    known = {"predictor": "", **_BEFORE}
    found = next((name for name in known if (folder / f"{name}.json").is_file()), None)
    if found is None:
        return None
    try:
        card = json.loads((folder / f"{found}.json").read_text())
        state = load((folder / f"{found}.safetensors").read_bytes())
        return str(known[found] or card["target"]), card, state
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(folder, error) from None


def damaged(folder: Path, error: Exception) -> TacitError:
    """One line for a predictor that cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return TacitError(f"the predictor in {folder} is damaged: {reason}")


def nothing_learned(folder: Path) -> UsageError:
    """One line for a run without a predictor."""
    return UsageError(
        f"'{folder}' has no predictor: its method learned no labels. A method that does can start from this "
        f"encoder: tacit fit METHOD --encoder run:{folder} --data LABELLED (tacit methods lists them)"
    )
