"""Learning from few labels, and predicting: through the public functions, on real images."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch

import tacit
from tacit.cli.main import main
from tacit.data.open import open_source
from tacit.errors import TacitError, UsageError
from tacit.methods.classification.fixmatch import MATCH
from tacit.tasks.registry import load_predictor, task_of
from tacit.training.checkpoint import Checkpoint
from tacit.training.learner import Learner
from tacit.training.options import Options
from tacit.training.run import Run
from tacit.training.teaching import teach as draw

FAST = {"encoder": "tacit/convnet?width=8", "batch_size": 16, "device": "cpu", "quiet": True}


def teach(data, out, method="fixmatch", **options):
    return tacit.fit(method, data, out=out, **{**FAST, "epochs": 2, **options})


@pytest.fixture(scope="module")
def run(labelled_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "run"
    return teach(labelled_folder, out, labels_per_class=8, epochs=30, mu=1.0, options={"ema": 0.9})


def test_the_run_says_which_labels_it_had(run):
    record = run.settings()["record"]
    assert record["labels"]["learned"] == {"china": 8, "flower": 8}
    assert record["labels"]["held_out"] == {"china": 2, "flower": 2}
    assert record["labels"]["unlabelled"] == 80 - 16 - 4
    assert record["data"]["samples"] == 76
    assert record["data"]["labelled"] == 16
    rows = run.metrics()
    assert float(rows[-1]["balanced_accuracy"]) >= 0.75
    assert rows[-1]["knn"] == ""
    assert (
        "16 of them with a label that is learned from, and 4 labels held out"
        in (run.folder / "report.html").read_text()
    )


def test_what_is_kept_is_what_predicts(run, labelled_folder, tmp_path):
    """The saved classifier gives the answers of the averaged network in the checkpoint."""
    found = tacit.predict(run, labelled_folder, tmp_path / "p.csv", device="cpu")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert list(rows[0]) == ["file", "label", "predicted", "confidence", "p_china", "p_flower"]
    assert len(rows) == found.samples == 80
    names = open_source(labelled_folder).names
    assert [row["file"] for row in rows] == list(names)
    state = Checkpoint.load(run.last).method
    weights = load_predictor(run.folder)
    torch.testing.assert_close(weights.head.weight, state["average.1.1.weight"])
    for row in rows:
        p = {name: float(row[f"p_{name}"]) for name in ("china", "flower")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(p, key=p.get)
        assert float(row["confidence"]) == pytest.approx(max(p.values()))
        assert row["label"] == row["file"].split("/")[0]
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert found.grades.accuracy == pytest.approx(right)
    assert right > 0.85


def test_the_confidence_is_tempered_by_the_held_out_labels(run, labelled_folder, tmp_path):
    card = json.loads((run.folder / "predictor.json").read_text())
    assert card["held_out"] == 4
    assert card["classes"] == ["china", "flower"]
    assert card["grades"]["n"] == 4
    assert 0.05 <= card["temperature"] <= 20
    first = tacit.predict(run, labelled_folder, tmp_path / "a.parquet", device="cpu")
    classifier = load_predictor(run.folder)
    source = open_source(labelled_folder)
    batch = source.batch(range(8))
    tempered = classifier.to("cpu").probabilities(batch)
    classifier.card.temperature = 1.0
    plain = classifier.to("cpu").probabilities(batch)
    torch.testing.assert_close(tempered, (plain.log() / card["temperature"]).softmax(1))
    table = pyarrow.parquet.read_table(first.path)
    assert np.allclose(table["p_china"].to_numpy()[:8], tempered[:, 0].detach(), atol=1e-5)


def test_without_labels_there_are_predictions_all_the_same(run, jpgs, tmp_path, capsys):
    words = ["predict", str(run), "--data", str(jpgs), "--out", str(tmp_path / "p.csv"), "--device", "cpu"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "calibrated on 4 held-out labels" in out
    assert "64 rows" in out
    assert {row["label"] for row in csv.DictReader((tmp_path / "p.csv").open())} == {""}


def test_a_run_without_held_out_labels_is_not_calibrated(labelled_folder, tmp_path, capsys):
    run = teach(labelled_folder, tmp_path / "run", method="supervised", held_out=0.0, epochs=1)
    assert run.settings()["record"]["labels"]["held_out"] == {}
    assert main(["predict", str(run), "--data", str(labelled_folder), "--out", str(tmp_path / "p.csv")]) == 0
    assert "not calibrated" in capsys.readouterr().err
    assert load_predictor(run.folder).card.temperature == 1.0


def test_mistakes_are_one_line(run, jpgs, labelled_folder, tmp_path):
    strange = tmp_path / "labels.csv"
    strange.write_text("file,label\nchina/000.png,china\nchina/001.png,dog\n")
    other = tacit.fit("dcl", jpgs, out=tmp_path / "dcl", epochs=1, **FAST)
    for what, arguments, says in (
        (run, {"labels": str(strange)}, "labels 'dog', which the run does not know"),
        (run, {"out": tmp_path / "p.txt"}, "unknown ending of --out '.txt'"),
        (other, {}, "its method learned no labels"),
        (tmp_path / "absent", {}, "no run at"),
    ):
        with pytest.raises(UsageError) as caught:
            tacit.predict(what, labelled_folder, arguments.pop("out", tmp_path / "p.csv"), **arguments)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "copy").mkdir()
    for path in run.folder.glob("*.*"):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "copy" / "predictor.safetensors").write_bytes(b"nothing")
    with pytest.raises(TacitError, match=r"predictor in .* is damaged"):
        tacit.predict(tmp_path / "copy", labelled_folder, tmp_path / "p.csv")


@pytest.mark.parametrize("options", [{"labels_per_class": 5}, {"held_out": 0.1}, {"mu": 2.0}])
def test_a_method_without_labels_has_no_budget(options, jpgs, tmp_path):
    with pytest.raises(UsageError, match="dcl learns no labels"):
        tacit.fit("dcl", jpgs, out=tmp_path / "x", epochs=1, **FAST, **options)


def test_data_without_labels_are_refused(jpgs, tmp_path):
    with pytest.raises(UsageError, match="no labels to learn from"):
        teach(jpgs, tmp_path / "x")
    assert not (tmp_path / "x" / "run.yaml").exists()


def test_labels_beyond_the_budget_are_gone(labelled_folder):
    source = open_source(labelled_folder)
    asked = Options.of({"method": "", "data": "", "seed": 3, "labels_per_class": 4, "quiet": True})
    teaching = draw(asked, MATCH, task_of("class"), source, np.arange(80))
    assert (teaching.whole.labels >= 0).sum() == 8 + 2
    assert (teaching.pool.labels >= 0).sum() == 8
    assert (source.labels >= 0).all()  # the source of the caller keeps its own
    names = [teaching.pool.names[i] for i in teaching.labelled.positions]
    assert [name.split("/")[0] for name in names] == ["china"] * 4 + ["flower"] * 4
    assert not {*names} & {source.names[i] for i in teaching.held_out}
    assert teaching.labelled.batch_size == 64  # 448 / 7


def test_pretraining_first(labelled_folder, tmp_path):
    small = {"pretrain_epochs": 1, "pretrain_batch_size": 16}
    run = teach(labelled_folder, tmp_path / "run", labels_per_class=4, pretrain="dcl", epochs=1, **small)
    first = Run(tmp_path / "run-dcl")
    assert first.finished
    assert first.settings()["method"]["name"] == "dcl"
    assert first.settings()["labels"] == "none"
    assert run.settings()["encoder"] == FAST["encoder"]
    assert run.settings()["pretrain"] == "dcl"
    assert (tmp_path / "run-dcl" / "checkpoints" / "last.pt").is_file()
    for options, says in (
        ({"pretrain": "fixmatch"}, "fixmatch learns labels"),
        ({"pretrain": "dlc"}, "unknown method 'dlc'"),
        ({"pretrain": "alice"}, "a method for images, and alice is for volumes"),
        ({"pretrain": "dcl", "encoder": f"run:{first}"}, "give one of them"),
    ):
        with pytest.raises(UsageError, match=says):
            teach(tmp_path / "absent", tmp_path / "other", **options)  # told before data are opened


def test_a_learned_encoder_is_where_a_classifier_begins(labelled_folder, tmp_path):
    first = tacit.fit("dcl", labelled_folder, out=tmp_path / "first", labels="none", epochs=1, **FAST)
    options = {"encoder": f"run:{first}", "lr": 1e-12, "epochs": 1, "options": {"ema": 0.0}}
    run = teach(labelled_folder, tmp_path / "second", method="supervised", **options)
    before, after = first.encoder(), run.encoder()
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_stopped_and_resumed_is_never_stopped(labelled_folder, tmp_path, monkeypatch):
    options = {"method": "flexmatch", "labels_per_class": 4, "save_every": 0}
    whole = teach(labelled_folder, tmp_path / "whole", **options)
    ended = Learner.optimizer_step

    def stop(self, *args, **kwargs):
        ended(self, *args, **kwargs)
        if self.index == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "optimizer_step", stop)
        with pytest.raises(BaseException):  # noqa: B017, PT011  # Lightning turns it into an exit
            teach(labelled_folder, tmp_path / "stopped", **options)
    assert Checkpoint.load(tmp_path / "stopped" / "checkpoints" / "last.pt").step == 3
    again = teach(labelled_folder, tmp_path / "stopped", resume=True, **options)
    for name in ("encoder.safetensors", "predictor.safetensors", "predictor.json"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_changed_labels_cannot_be_resumed(labelled_folder, tmp_path):
    rows = [f"china/{i:03}.png,{i % 2}" for i in range(40)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label", *rows]))
    options = {"labels": str(table), "labels_per_class": 4, "save_every": 0}
    run = teach(labelled_folder, tmp_path / "run", **options)
    (run.folder / "encoder.json").unlink()  # as if it had not finished
    table.write_text("\n".join(["file,label", *reversed(rows[:20])]))
    with pytest.raises(UsageError, match="the labels have changed since it was begun"):
        teach(labelled_folder, tmp_path / "run", resume=True, **options)
