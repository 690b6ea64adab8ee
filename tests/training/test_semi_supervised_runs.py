"""Whole small runs of the methods that learn labels."""

import numpy as np
import pytest
import torch
from torch import nn

import tacit
from tacit.data.open import open_source
from tacit.encoders.card import attach_card
from tacit.methods.registry import METHODS
from tacit.rng import Rng, seeded

SLUGS = [slug for slug, entry in METHODS.items() if entry.family in ("semi-supervised", "baseline")]
FAST = {"batch_size": 16, "mu": 2.0, "device": "cpu", "quiet": True, "epochs": 1}


def learn(method, data, out, **options):
    return tacit.fit(method, data, out=out, **{"encoder": "tacit/convnet?width=4", **FAST, **options})


@pytest.mark.parametrize("slug", SLUGS)
def test_every_method_learns_and_predicts(slug, labelled_folder, tmp_path):
    run = learn(slug, labelled_folder, tmp_path / "run", labels_per_class=6)
    found = tacit.predict(run, labelled_folder, tmp_path / "p.csv", device="cpu")
    assert found.samples == 80
    assert found.card.held_out == 4
    assert np.isfinite(found.grades.balanced_accuracy)
    assert float(run.metrics()[-1]["supervised"]) > 0


@pytest.mark.parametrize("slug", ["semixup", "fixmatch", "flexmatch"])
def test_without_any_unlabelled_sample(slug, labelled_folder, tmp_path):
    run = learn(slug, labelled_folder, tmp_path / "run", held_out=0.0)
    labels = run.settings()["record"]["labels"]
    assert labels["learned"] == {"china": 40, "flower": 40}
    assert labels["unlabelled"] == 0


def test_a_class_that_is_too_small_is_named(labelled_folder, tmp_path, capfd):
    learn("supervised", labelled_folder, tmp_path / "run", labels_per_class=50, quiet=False)
    assert "class 'china' lends 40 label(s), 50 were asked for" in capfd.readouterr().err


def test_groups_stay_on_one_side(labelled_folder, tmp_path):
    pattern = r"re:(\w+/\d\d)\d"  # ten neighbouring files are a patient
    run = learn("supervised", labelled_folder, tmp_path / "run", groups=pattern, labels_per_class=8)
    record = run.settings()["record"]
    assert record["labels"]["held_out"] == {"china": 2, "flower": 2}
    groups = open_source(labelled_folder, groups=pattern).groups
    assert len(np.unique(groups)) == 8
    assert record["data"]["samples"] == 80 - 20  # the two patients that are held out are gone


class Flat(nn.Module):
    """A network without statistics."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3 * 24 * 24, 8)

    def forward(self, x):
        return self.map(x.flatten(1))


@pytest.mark.parametrize("slug", ["supervised", "pi-model", "mean-teacher", "fixmatch"])
def test_accumulated_parts_are_the_whole_batch(slug, labelled_folder, tmp_path):
    states = []
    for parts in (1, 2):
        with seeded(Rng.of(0)("flat")):
            encoder = attach_card(Flat(), channels=3, size=24, num_features=8)
        options = {"accumulate": parts, "encoder": encoder, "labels_per_class": 6, "lr": 0.01}
        learn(slug, labelled_folder, tmp_path / str(parts), **options)
        states.append(encoder.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=1e-5, rtol=1e-4)
