"""A statement for each semi-supervised method: predictions fit what training sees."""

import pytest
import torch

import tacit
from tacit.methods.registry import own_methods
from tacit.tasks.classes import task as classes
from tacit.training import finishing, running

CPU = torch.device("cpu")
SLUGS = [
    slug for slug, entry in own_methods().items() if entry.learns == "class" and entry.modality == "image"
]


def test_there_are_eleven():
    assert len(SLUGS) == 11


@pytest.mark.parametrize("slug", SLUGS)
def test_predictions_fit_what_training_sees(slug, tmp_path, monkeypatch):
    """In evaluation mode a network knows the pictures that it has learned as it does in training mode.

    Before statistics are estimated again, for either network; and at the end for the one that is kept.
    """
    seen, steps, own = {}, [], running.finish

    def finish(learner, run, probe, *rest):
        steps.append(learner.plan.total)
        for name in learner.method.candidates:
            learner.method.kept = name
            seen[name] = probe.modes(CPU)
        summary = own(learner, run, probe, *rest)
        seen["kept"] = probe.modes(CPU)
        return summary

    monkeypatch.setattr(running, "finish", finish)
    monkeypatch.setattr(classes, "class_floors", lambda *args: [])  # neither counts here
    monkeypatch.setattr(finishing, "write_report", lambda folder: None)
    settings = {"encoder": "tacit/convnet?width=8", "device": "cpu", "quiet": True}
    settings |= {"labels_per_class": 5, "batch_size": 32, "mu": 1.0, "epochs": 1}
    if slug == "semixup":
        settings["lr"] = 0.01  # its own is for longer runs
    tacit.fit(slug, "digits", out=tmp_path / "run", **settings)
    assert steps == [44]
    averaged = ["averaged"] if slug != "semixup" else []  # which does not average
    assert list(seen) == [*averaged, "trained", "kept"]
    for name, modes in seen.items():
        assert modes.pictures == 50
        assert modes.training > 0.8, name  # something was learned, which evaluation could fall behind
        assert modes.evaluation > modes.training - 0.1, name
