"""An encoder on disk: `encoder.safetensors`, its weights, and `encoder.json`, its card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import nn

from tacit.encoders.card import EncoderCard, card_of
from tacit.errors import TacitError, UsageError
from tacit.files import write_atomically
from tacit.untrusted import first_line, read_json

WEIGHTS, CARD = "encoder.safetensors", "encoder.json"


def save_encoder(encoder: nn.Module, folder: Path, load: Sequence[str] = ()) -> None:
    """Write weights and card into `folder`; each file appears whole or not at all.

    load: lines of Python that load the weights without us; they stand in the card's file, under `load`.
    """
    # a clone each: safetensors refuses tensors that share memory, as tied weights do
    state = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()
    }
    write_atomically(folder / WEIGHTS, save(state))
    write_atomically(
        folder / CARD, json.dumps({**card_of(encoder).as_json(), "load": list(load)}, indent=2).encode()
    )


def load_card(folder: Path) -> EncoderCard:
    """The card of a run's encoder.

    Raises:
        UsageError: the folder is no run, or its run has not finished.
        TacitError: the card cannot be read.
    """
    if not folder.exists():
        raise UsageError(f"no run at '{folder}': there is no such folder")
    if not (folder / CARD).is_file():
        unfinished = (folder / "run.yaml").is_file()
        mend = (
            f"its run has not finished; go on with: tacit fit --resume --out {shlex.quote(str(folder))}"
            if unfinished
            else "name a folder that `tacit fit --out` wrote"
        )
        raise UsageError(f"'{folder}' holds no encoder ({CARD} is missing): {mend}")
    try:
        return EncoderCard.from_json(read_json(folder / CARD))
    except OSError as error:
        raise TacitError(f"cannot read {folder / CARD}: {first_line(error)}") from None
    except (ValueError, UsageError) as error:
        raise TacitError(f"{folder / CARD} is damaged: {first_line(error)}") from None
