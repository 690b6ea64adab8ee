"""`--preset laptop`: what a run on two cores without a GPU takes, where the user asks for nothing else."""

from __future__ import annotations

from typing import Any

from tacit.data.form import form_class
from tacit.errors import UsageError
from tacit.methods.base import Method
from tacit.tasks.registry import task_of
from tacit.training.options import Options

STEPS = 2400
"""Of a method that learns labels."""

_SMALL = 32  # pixels up to which three layers see enough of a picture
_EPOCHS = 60
_LEAST, _MOST = 1500, 4000  # steps without labels, whatever the number of images


def check_preset(options: Options, learns: type[Method]) -> None:
    """Refuse what the preset is not for, before any data are opened.

    Raises:
        UsageError: an unknown preset, a method for volumes, or the recipe of the paper beside it.
    """
    preset = options.start.preset
    if preset is None:
        return
    if preset != "laptop":
        raise UsageError(f"unknown preset '{preset}'; known: laptop")
    dense = learns.learns is not None and task_of(learns.learns).dense
    if dense or not form_class(learns.kinds()[0]).light:
        raise UsageError(f"--preset laptop is not for {options.method}: name an --encoder and --epochs")
    if options.viewing.recipe == "paper":
        raise UsageError("--preset laptop and --recipe paper are two recipes: give one of them")


def laptop(learns: type[Method], samples: int, side: int) -> dict[str, Any]:
    """Arguments of `fit` by name. samples: that are learned from. side: in pixels of what the encoder sees.

    Chosen on validation parts, see docs/laptop.md.
    """
    adam = {"optimizer": "adam", "lr": 1e-3, "lr_scaling": "none"}
    if learns.learns is not None:
        batch = min(64, samples)
        encoder = "tacit/convnet" if side <= _SMALL else "tacit/convnet?depth=4"
        epochs = max(1, round(STEPS / max(1, samples // batch)))
        schedule = {"weight_decay": 0.0, "schedule": "cosine 7/16"}
        return {"encoder": encoder, "batch_size": batch, "mu": 2.0, "epochs": epochs, **adam, **schedule}
    batch = min(128 if samples >= _LEAST else 64, samples)
    # 256 features either way; twice the width for larger pictures would take four times as long
    encoder = f"tacit/convnet?{'width=64&depth=3' if side <= _SMALL else 'width=32&depth=4'}"
    return {"encoder": encoder, "batch_size": batch, "epochs": pretraining_epochs(samples, batch), **adam}


def pretraining_epochs(samples: int, batch: int) -> int:
    """Passes over the images without labels: 60, but 1,500 steps at least and 4,000 at most."""
    per_epoch = max(1, samples // batch)
    return max(1, round(min(max(_EPOCHS * per_epoch, _LEAST), _MOST) / per_epoch))
