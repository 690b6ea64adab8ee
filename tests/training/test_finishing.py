"""The end of a run: statistics that fit, the better network kept, floors beside it, and a resumed run."""

import copy
import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from threadpoolctl import threadpool_limits
from torch import nn

import tacit
from tacit.data.open import open_source
from tacit.encoders.card import attach_card
from tacit.encoders.zoo import build_encoder
from tacit.evaluation import batch_statistics as statistics_module
from tacit.evaluation.batch_statistics import LEAST, tracking_layers
from tacit.methods.classification.supervised import Supervised
from tacit.rng import Rng
from tacit.tasks.classes import task as classes
from tacit.tasks.classes.floors import FREQUENT, PIXELS, START, class_floors
from tacit.tasks.classes.online import HeldOutProbe
from tacit.tasks.online import OnlineProbe
from tacit.tasks.registry import load_predictor
from tacit.training import finishing, running
from tacit.training.summary import Summary

CPU = torch.device("cpu")
ENCODER = "tacit/convnet?width=8"
TINY = {"encoder": ENCODER, "device": "cpu", "quiet": True, "labels_per_class": 4, "batch_size": 128}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):  # many threads for a small matrix wait for each other
        yield


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    monkeypatch.setattr(finishing, "write_report", lambda folder: None)


def parameters(module):
    return [p.detach().clone() for p in module.parameters()]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.fixture
def ends(monkeypatch):
    """What the runs of a test had come to when they were finished."""
    found = []
    own = running.finish

    def finish(learner, run, probe, *rest):
        method = learner.method
        networks = {"averaged": method.average, "trained": method._network}
        before = {name: parameters(net) for name, net in networks.items() if net is not None}
        found.append(SimpleNamespace(method=method, probe=probe, before=before))
        return own(learner, run, probe, *rest)

    monkeypatch.setattr(running, "finish", finish)
    return found


@pytest.fixture
def no_floors(monkeypatch):
    monkeypatch.setattr(classes, "class_floors", lambda *args: [])


def saved(run):
    """Parameters of the classifier on disk: encoder, then head."""
    found = load_predictor(run.folder)
    return [*parameters(found.encoder), *parameters(found.head)]


@pytest.mark.parametrize("winner", ["averaged", "trained", None])
def test_the_network_with_the_larger_score_is_kept_and_saved(winner, tmp_path, monkeypatch, ends):
    """None: as it comes."""
    if winner is not None:

        def measure(self, encoder, device):
            return {"balanced_accuracy": 0.875 if self.method.kept == winner else 0.5}

        monkeypatch.setattr(HeldOutProbe, "measure", measure)
    run = tacit.fit("fixmatch", "digits", out=tmp_path / "run", epochs=2, **TINY)
    (end,) = ends
    read = json.loads((run.folder / "summary.json").read_text())
    assert read["score"] == "balanced_accuracy"
    assert read["held_out"] == 10
    assert list(read["candidates"]) == ["averaged", "trained"]
    assert read["kept"] == max(read["candidates"], key=read["candidates"].get)  # the first of equals
    assert read["kept"] == (winner or read["kept"])
    if winner is not None:
        other = {"averaged": "trained", "trained": "averaged"}[winner]
        assert read["candidates"] == {winner: 0.875, other: 0.5}
    assert end.method.kept == read["kept"]
    assert equal(saved(run), end.before[read["kept"]])
    rest = end.before["trained" if read["kept"] == "averaged" else "averaged"]
    assert not any(torch.equal(a, b) for a, b in zip(saved(run), rest, strict=True))
    # buffers, too: those that were settled
    statistics = load_file(run.folder / "encoder.safetensors")
    assert all(torch.equal(v, statistics[k]) for k, v in end.method.evaluated.state_dict().items())
    assert Summary.load(run.folder).remedies[1].startswith("more steps")


def test_floors_stand_in_the_summary(tmp_path, ends, capsys, monkeypatch):
    asked = []

    def spy(source, learned, test, encoder, device):
        asked.append((source, learned, test, parameters(encoder), encoder.training))
        return class_floors(source, learned, test, encoder, device)

    monkeypatch.setattr(classes, "class_floors", spy)
    run = tacit.fit("supervised", "digits", out=tmp_path / "run", epochs=1, **{**TINY, "quiet": False})
    (end,), ((source, learned, test, start, training),) = ends, asked
    assert source is end.probe.source
    assert np.array_equal(learned, end.probe.learned)
    assert np.array_equal(test, end.probe.queries)
    assert not set(learned) & set(test)
    assert equal(start, parameters(build_encoder(ENCODER, channels=1, size=8)))  # nothing has learned yet
    assert training
    summary = Summary.load(run.folder)
    assert list(summary.floors) == [FREQUENT, PIXELS, START]
    assert summary.floors[FREQUENT] == pytest.approx(0.1)
    assert summary.floors[PIXELS] > 0.5
    assert all(round(10 * score, 6).is_integer() for score in summary.floors.values())  # of ten pictures
    # eleven steps are too few
    assert summary.candidates[summary.kept] < summary.floors[PIXELS]
    assert summary.above == PIXELS
    assert capsys.readouterr().err.splitlines()[-len(summary.lines()) :] == summary.lines()
    assert len(summary.lines()) >= 3


def test_equals_leave_the_first(tmp_path, monkeypatch, no_floors):
    monkeypatch.setattr(HeldOutProbe, "measure", lambda *args: {"balanced_accuracy": 0.5})
    run = tacit.fit("supervised", "digits", out=tmp_path / "run", epochs=1, **TINY)
    assert Summary.load(run.folder).kept == "averaged"


def test_without_held_out_labels_the_average_is_kept(tmp_path, ends, capsys):
    settings = {**TINY, "held_out": 0.0, "quiet": False}
    run = tacit.fit("supervised", "digits", out=tmp_path / "run", epochs=2, **settings)
    summary = Summary.load(run.folder)
    assert (summary.held_out, summary.kept, summary.candidates, summary.floors) == (0, "averaged", {}, {})
    assert equal(saved(run), ends[0].before["averaged"])
    assert not equal(saved(run), ends[0].before["trained"])
    said = capsys.readouterr().err
    assert "held out:" not in said
    assert "floors:" not in said


def test_floors_stand_beside_a_score_only(tmp_path, monkeypatch):
    monkeypatch.setattr(HeldOutProbe, "measure", lambda *args: {})
    summary = Summary.load(tacit.fit("supervised", "digits", out=tmp_path / "run", epochs=1, **TINY).folder)
    assert (summary.kept, summary.candidates, summary.floors) == ("averaged", {}, {})


def test_a_run_that_does_not_average_has_one_candidate(tmp_path, ends, no_floors):
    run = tacit.fit("fixmatch", "digits", out=tmp_path / "run", epochs=1, options={"ema": 0.0}, **TINY)
    summary = Summary.load(run.folder)
    assert summary.kept == "trained"
    assert list(summary.candidates) == ["trained"]
    assert equal(saved(run), ends[0].before["trained"])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A probe of a small classifier of digits, after some steps; the labels of 50 pictures were learned."""
    found = []
    own = running.finish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "class_floors", lambda *args: [])
        patch.setattr(finishing, "write_report", lambda folder: None)
        patch.setattr(running, "finish", lambda *args: found.append(args[2]) or own(*args))
        folder = tmp_path_factory.mktemp("learned") / "run"
        settings = {**TINY, "labels_per_class": 5, "batch_size": 64}
        tacit.fit("supervised", "digits", out=folder, epochs=3, **settings)
    return found[0]


@pytest.fixture
def probe(learned):
    return copy.deepcopy(learned)


def corrupt(method):
    """Running statistics that belong to other pictures, of either network."""
    for layer in tracking_layers(method):
        layer.running_mean += 3


def buffers(method):
    return [b.clone() for b in method.buffers()]


@pytest.mark.parametrize("name", ["averaged", "trained"])
def test_statistics_that_do_not_fit_are_estimated_again(name, probe):
    method = probe.method.train()
    corrupt(method)
    method.kept = name
    weights, rest = parameters(method), buffers(method.head)
    modes = [m.training for m in method.modules()]
    other = method.encoder if name == "averaged" else method.average[0]
    untouched = buffers(other)
    before, after = probe.settle(CPU)
    assert before.evaluation < before.training - 0.3
    assert before.apart
    assert after.training == pytest.approx(before.training)
    assert after.training > 0.9
    assert after.evaluation >= after.training - 0.05
    assert after == probe.modes(CPU)
    assert equal(parameters(method), weights)
    assert equal(buffers(method.head), rest)
    assert equal(buffers(other), untouched)
    assert [m.training for m in method.modules()] == modes


def test_what_was_mended_is_said_for_each_network(probe):
    corrupt(probe.method)
    said = finishing.settle(probe.method, probe, CPU)
    assert list(said) == ["averaged", "trained"]
    for text in said.values():
        assert text.startswith("BatchNorm's running statistics did not fit clean training pictures (")
        assert "estimated again on clean pictures (" in text
        assert "did not help" not in text
    for name in said:
        probe.method.kept = name
        modes = probe.modes(CPU)
        assert modes.evaluation >= modes.training - 0.05
    assert finishing.settle(probe.method, probe, CPU) == {}  # there is nothing to say of statistics that fit


def test_what_could_not_be_mended_is_said(probe, monkeypatch):
    corrupt(probe.method)
    monkeypatch.setattr(statistics_module, "estimate_again", lambda encoder, batches: None)
    for text in finishing.settle(probe.method, probe, CPU).values():
        assert "BatchNorm" in text
        assert "estimating them again did not help: predictions may be poor" in text


def test_statistics_that_make_it_worse_are_taken_back(probe, monkeypatch):
    def ruin(encoder, batches):
        for layer in tracking_layers(encoder):
            layer.running_mean.fill_(1e3)
            layer.num_batches_tracked.zero_()

    monkeypatch.setattr(statistics_module, "estimate_again", ruin)
    kept = buffers(probe.method)
    before, after = probe.settle(CPU)
    assert before == after == probe.modes(CPU)
    assert equal(buffers(probe.method), kept)


def test_statistics_are_of_clean_pictures_whose_labels_are_learned(probe, monkeypatch):
    seen = []

    def look(encoder, batches):
        assert encoder is probe.method.evaluated
        seen.extend(batches)

    monkeypatch.setattr(statistics_module, "estimate_again", look)
    probe.settle(CPU)
    (pictures,) = seen
    source, form = probe.source, probe.method.encoder.card.form
    clean = torch.from_numpy(source.pixels[probe.learned]).float() / 255
    clean = (clean - form.mean[0]) / form.std[0]
    assert pictures.shape == clean.shape == (50, 1, 8, 8)
    key = pictures.flatten(1).sum(1).sort().values
    torch.testing.assert_close(key, clean.flatten(1).sum(1).sort().values)


@pytest.mark.parametrize(("count", "nothing"), [(LEAST - 1, True), (LEAST, False)])
def test_few_labelled_pictures_leave_statistics_as_they_are(count, nothing, probe):
    assert LEAST == 32
    corrupt(probe.method)
    probe.learned = probe.learned[:count]
    before = buffers(probe.method)
    assert (probe.settle(CPU) is None) is nothing
    assert equal(buffers(probe.method), before) is nothing
    probe.learned = probe.learned[:1]
    assert probe.modes(CPU) is None
    assert probe.settle(CPU) is None


def test_a_frozen_encoder_keeps_its_statistics(probe):
    corrupt(probe.method)
    probe.method.encoder.requires_grad_(False)
    before = buffers(probe.method)
    for name in probe.method.candidates:
        probe.method.kept = name
        assert probe.settle(CPU) is None
    assert finishing.settle(probe.method, probe, CPU) == {}
    assert equal(buffers(probe.method), before)
    # one layer that learns makes it its own
    probe.method.encoder.layers[0].requires_grad_(True)
    assert probe.settle(CPU) is not None


class Normed(nn.Module):
    """An encoder that normalises, but not by the batch."""

    def __init__(self, norm):
        super().__init__()
        self.map, self.norm = nn.Conv2d(1, 8, 3), norm

    def forward(self, x):
        return self.norm(self.map(x)).relu().mean((2, 3))


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 8), nn.LayerNorm([8, 6, 6]), nn.BatchNorm2d(8, track_running_stats=False)]
)
def test_without_running_statistics_there_is_nothing_to_settle(norm):
    source = open_source("digits")
    method = Supervised(attach_card(Normed(copy.deepcopy(norm)), channels=1, size=8, num_features=8))
    method.train().prepare(source)
    train = source.splits["train"]
    probe = HeldOutProbe(source, train, Rng.of(0), train[100:120], train[:64], method)
    assert probe.modes(CPU) is None
    assert probe.settle(CPU) is None
    assert finishing.settle(method, probe, CPU) == {}
    values = probe.measure(method.evaluated, CPU)
    assert "balanced_accuracy" in values
    assert "evaluation_mode" not in values


def test_other_probes_have_nothing_to_settle_or_keep(probe):
    source = probe.source
    plain = OnlineProbe(source, source.splits["train"], Rng.of(0))
    kept = buffers(probe.method)
    assert finishing.settle(probe.method, plain, CPU) == {}
    assert equal(buffers(probe.method), kept)


def test_measures_compare_both_modes(probe):
    values = probe.measure(probe.method.evaluated, CPU)
    modes = probe.modes(CPU)
    assert (values["evaluation_mode"], values["training_mode"]) == modes[:2]
    corrupt(probe.method)
    worse = probe.measure(probe.method.evaluated, CPU)
    assert worse["training_mode"] == values["training_mode"]  # the batch's own statistics
    assert worse["evaluation_mode"] < values["evaluation_mode"] - 0.3
    assert worse["balanced_accuracy"] < values["balanced_accuracy"]


class Stop(Exception):
    pass


@contextmanager
def stopping(step):
    """Within the block runs stop after this step, as a kill does."""
    after = running.Watch.on_train_batch_end

    def stop(self, trainer, learner, *args):
        after(self, trainer, learner, *args)
        if learner.index == step:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.Watch, "on_train_batch_end", stop)
        yield


@pytest.mark.parametrize("views", ["microscopy", None])
def test_a_resumed_run_keeps_its_views_and_ends_bit_identical(views, tmp_path):
    """None: those that the run chose by itself, digits. Options need not be given again, either."""
    settings = {**TINY, "epochs": 1, "save_every": 0.0}
    first = {"views": views, "options": {"threshold": 0.5, "weak": {"shift": 0.125}}}
    whole = tacit.fit("fixmatch", "digits", out=tmp_path / "whole", **first, **settings)
    with stopping(3), pytest.raises(Stop):
        tacit.fit("fixmatch", "digits", out=tmp_path / "part", **first, **settings)
    begun = tacit.Run(tmp_path / "part").settings()
    assert not tacit.Run(tmp_path / "part").finished
    part = tacit.fit("fixmatch", "digits", out=tmp_path / "part", resume=True, **settings)
    assert begun["views"] == part.settings()["views"] == (views or "digits")
    assert part.settings()["method"] == begun["method"] == whole.settings()["method"]
    weak = begun["method"]["weak"]
    assert (weak["quarter_turns"], weak["shift"]) == (1.0 if views else 0.0, 0.125)
    for name in ("encoder.safetensors", "predictor.safetensors", "summary.json"):
        assert (part.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    losses = [[(row["step"], row["loss"]) for row in run.metrics()] for run in (whole, part)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 11
    assert np.isfinite([float(loss) for _, loss in losses[0]]).all()
