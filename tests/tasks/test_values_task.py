"""Predictors of values: saved and loaded, written and graded, and learned through the public functions."""

import csv
import json
from functools import partial

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from sklearn.metrics import mean_absolute_error, r2_score
from torch import nn

import tacit
from tacit.cli.main import main
from tacit.data.open import open_source
from tacit.encoders.saved import save_encoder
from tacit.encoders.zoo import build_encoder
from tacit.errors import TacitError, UsageError
from tacit.rng import Rng, seeded
from tacit.tasks.base import Asked, Labels, Network
from tacit.tasks.registry import load_predictor, task_of
from tacit.tasks.values.regressor import ValueCard, ValueHead
from tacit.tasks.values.task import TASK
from tacit.training.learner import Learner
from tacit.training.summary import Summary

TINY = {"encoder": "tacit/convnet?width=8", "batch_size": 16, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    """100 crops of 16 x 16 pixels, darkened at random, and a CSV with the mean brightness of each."""
    place, draw = tmp_path_factory.mktemp("dim"), np.random.default_rng(0)
    rows = ["file,brightness,always"]
    (place / "photos").mkdir()
    for i in range(100):
        photo = photos["china" if i % 2 else "flower"]
        y, x = draw.integers(0, 400, 2)
        crop = (photo[y : y + 16, x : x + 16] * draw.uniform(0.1, 1)).astype(np.uint8)
        Image.fromarray(crop).save(place / "photos" / f"{i:03}.png")
        rows.append(f"{i:03}.png,{1000 + crop.mean():.6f},7")
    (place / "brightness.csv").write_text("\n".join(rows))
    return place


@pytest.fixture(scope="module")
def source(folder):
    return open_source(folder / "photos", values=folder / "brightness.csv", column="brightness")


@pytest.fixture
def network():
    with seeded(Rng.of(0)("values")):
        encoder = build_encoder("tacit/convnet?width=8", channels=3, size=16)
        return Network(encoder, ValueHead(nn.Linear(encoder.num_features, 1), mean=1070.0, scale=40.0))


def plainly(network, source, positions):
    """Predictions without any of our loops."""
    encoder, head = network.encoder.eval(), network.head
    x = encoder.card.form.still(source.batch(positions))
    with torch.no_grad():
        return (head.linear(encoder(x))[:, 0] * head.scale + head.mean).numpy()


def saved(network, source, folder, held_out):
    predictor = TASK.calibrate(network, source, held_out)
    predictor.save(folder, "value")
    save_encoder(network.encoder, folder)
    return predictor


def test_the_task_is_found():
    assert task_of("value") is TASK
    assert TASK.score in TASK.measures
    assert (TASK.amount, TASK.written, TASK.words) == ("labelled", "FILE.csv", ("values", "column"))


def test_a_loaded_predictor_gives_the_same_numbers_in_the_unit_of_the_values(network, source, tmp_path):
    made = saved(network, source, tmp_path, np.arange(20))
    loaded = load_predictor(tmp_path)
    assert loaded.card == made.card
    expected = plainly(network, source, np.arange(10))
    with torch.no_grad():
        found = loaded.to("cpu").values(source.batch(np.arange(10)))
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-6)
    assert 900 < expected.mean() < 1200
    x = network.encoder.card.form.still(source.batch(np.arange(10)))
    np.testing.assert_allclose(network.head(network.encoder(x)).detach().numpy(), expected, rtol=1e-6)


def test_calibration_keeps_the_modes(network, source):
    network.encoder.train()
    TASK.calibrate(network, source, np.arange(20))
    assert network.encoder.training


def test_the_interval_is_from_the_held_out_values(network, source):
    held_out = np.arange(40, 79)
    card = TASK.calibrate(network, source, held_out).card
    residuals = np.sort(np.abs(source.values[held_out] - plainly(network, source, held_out)))
    assert card.width == pytest.approx(residuals[35], rel=1e-5)  # the 36th of 39: 0.9 x 40
    assert (card.held_out, card.count, card.coverage) == (39, 39, 0.9)
    assert card.grades["count"] == 39
    few = TASK.calibrate(network, source, held_out[:8]).card
    assert few.width is None
    assert few.reason == "8 held-out samples are too few for 90 %: 9 are needed"
    assert few.grades["count"] == 8
    none = TASK.calibrate(network, source, held_out[:0]).card
    assert (none.width, none.grades, none.held_out) == (None, None, 0)


def test_the_table_has_value_prediction_and_interval(network, source, tmp_path):
    predictor = TASK.calibrate(network, source, np.arange(20))
    partly = source.hiding(np.arange(50))
    found = TASK.write(predictor, partly, Asked(tmp_path / "p.csv", batch_size=32), "cpu")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert list(rows[0]) == ["file", "value", "predicted", "low", "high"]
    assert [row["file"] for row in rows] == list(source.names)
    assert [float(row["value"]) for row in rows[:50]] == pytest.approx(source.values[:50].tolist(), abs=1e-9)
    assert {row["value"] for row in rows[50:]} == {""}
    predicted = plainly(network, source, np.arange(100))
    assert [float(row["predicted"]) for row in rows] == pytest.approx(predicted.tolist(), rel=1e-6)
    width = predictor.card.width
    for row in rows:
        assert float(row["low"]) == pytest.approx(float(row["predicted"]) - width, abs=1e-3)
        assert float(row["high"]) == pytest.approx(float(row["predicted"]) + width, abs=1e-3)
    assert found.samples == 100
    assert found.grades.count == 50
    assert found.grades.r2.value == pytest.approx(r2_score(source.values[:50], predicted[:50]), abs=1e-5)
    assert found.said == (
        f"interval: predicted +- {width:.4g} covers 90 % of values like the 20 held-out ones",
    )
    assert found.notes == ()


def test_without_an_interval_its_columns_are_empty(network, source, tmp_path):
    predictor = TASK.calibrate(network, source, np.arange(3))
    bare = open_source(source, labels="none")
    found = TASK.write(predictor, bare, Asked(tmp_path / "p.parquet"), "cpu")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["file", "value", "predicted", "low", "high"]
    assert table["low"].null_count == table["high"].null_count == table["value"].null_count == 100
    assert found.grades is None
    assert found.said == ()
    assert found.notes == (
        "note: no interval, because 3 held-out samples are too few for 90 %: 9 are needed",
    )


def test_grades_are_plain_numbers(network, source):
    predictor = TASK.calibrate(network, source, np.arange(0))
    positions = np.arange(30, 60)
    found = TASK.grade(predictor, source, positions, "cpu")
    predicted = plainly(network, source, positions)
    assert found["r2"] == pytest.approx(r2_score(source.values[positions], predicted), abs=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(source.values[positions], predicted), rel=1e-5)
    assert found["mae_low"] < found["mae"] < found["mae_high"]
    assert found["n"] == 30
    assert set(TASK.measures) < found.keys()
    assert all(isinstance(value, int | float) for value in found.values())
    json.dumps(found)


def test_floors_are_graded_alike(network, source):
    found = TASK.floors(source, np.arange(40), np.arange(40, 100), network.encoder, "cpu")
    assert list(found) == ["mean of the learned values", "pixels", "start encoder"]
    assert -0.3 < found["mean of the learned values"]["r2"] <= 0
    assert found["pixels"]["r2"] > 0.5
    assert found["pixels"].keys() >= set(TASK.measures)


def test_hidden_labels_stay_hidden(source):
    budget = TASK.draw(source, np.arange(100), Labels(labelled=20), Rng.of(0), None)
    assert (len(budget.labelled), len(budget.held_out)) == (20, 5)
    assert TASK.count(source, budget.labelled) == {"values": 20}
    seen = source.hiding(np.concatenate([budget.labelled, budget.held_out]))
    assert (~np.isnan(seen.values)).sum() == 25
    pool = seen.subset(budget.pool)
    assert (~np.isnan(pool.values)).sum() == 20
    assert not np.isnan(source.values).any()
    assert pool[3].target is None


def test_values_that_float32_cannot_tell_apart_are_doubted(source):
    budget = TASK.draw(source, np.arange(100), Labels(labelled=20), Rng.of(0), None)
    assert TASK.doubts(source, budget) == []
    far = source.hiding(np.arange(100))
    far.values = source.values + 1.6e9
    (doubt,) = TASK.doubts(far, budget)
    assert "subtract their mean" in doubt


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("predictor.safetensors", lambda data: b"nothing"),
        ("predictor.safetensors", lambda data: data[: len(data) // 2]),
        ("predictor.json", lambda data: b"{"),
        ("predictor.json", lambda data: data.replace(b'"width": ', b'"width": "wide", "x": ')),
        ("predictor.json", lambda data: data.replace(b'"width": ', b'"width": -')),
        ("predictor.json", lambda data: data.replace(b'"value"', b'"class"')),
    ],
)
def test_damaged_files_are_one_line(file, change, network, source, tmp_path):
    saved(network, source, tmp_path, np.arange(20))
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TacitError, match=r"the predictor in .* is damaged") as caught:
        load_predictor(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_head_of_another_encoder_is_damage(network, source):
    predictor = TASK.calibrate(network, source, np.arange(0))
    with pytest.raises(ValueError, match=r"its linear.weight is \[1, 3\], and"):
        TASK.restore(predictor.encoder, {}, ValueHead(nn.Linear(3, 1)).state_dict())


def test_cards_of_later_versions_are_read():
    card = ValueCard.from_json({"width": 2.0, "later": 1})
    assert card.width == 2.0


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    return tacit.fit(
        "supervised-regression",
        folder / "photos",
        values=str(folder / "brightness.csv"),
        column="brightness",
        out=tmp_path_factory.mktemp("values") / "run",
        labelled=60,
        epochs=20,
        **TINY,
    )


def test_a_run_beats_the_mean(run, source):
    record = run.settings()["record"]["labels"]
    assert record["learned"] == {"values": 60}
    assert record["held_out"] == {"values": 15}
    summary = Summary.load(run.folder)
    assert summary.score == "r2"
    assert summary.candidates[summary.kept] > summary.floors["mean of the learned values"] + 0.5
    predictor = load_predictor(run.folder)
    assert 1000 < predictor.head.mean.item() < 1200
    assert predictor.card.width is not None
    assert predictor.card.held_out == 15


def test_a_run_that_was_stopped_and_resumed_is_the_same(folder, tmp_path, monkeypatch):
    settings = {
        "values": str(folder / "brightness.csv"),
        "column": "brightness",
        "labelled": 20,
        "epochs": 1,
        "save_every": 0.0,
        **TINY,
    }
    learn = partial(tacit.fit, "supervised-regression", folder / "photos", **settings)
    whole, ended = learn(out=tmp_path / "whole"), Learner.optimizer_step

    def stop(self, *args, **kwargs):
        ended(self, *args, **kwargs)
        if self.index == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "optimizer_step", stop)
        with pytest.raises(BaseException):  # noqa: B017, PT011  # Lightning turns it into an exit
            learn(out=tmp_path / "part")
    again = learn(out=tmp_path / "part", resume=True)
    for name in ("encoder.safetensors", "predictor.safetensors", "predictor.json"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_run_predicts_in_the_unit_of_its_values(run, folder, tmp_path, capsys):
    words = ["predict", str(run), "--data", str(folder / "photos"), "--device", "cpu"]
    truth = ["--values", str(folder / "brightness.csv"), "--column"]
    assert main([*words, "--out", str(tmp_path / "p.csv"), *truth, "brightness"]) == 0
    out = capsys.readouterr().out
    assert "interval: predicted +- " in out
    assert "100 rows" in out
    assert "R2" in out
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    true, found = (np.array([float(row[name]) for row in rows]) for name in ("value", "predicted"))
    assert r2_score(true, found) > 0.5
    inside = [float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows]
    assert np.mean(inside) > 0.7
    # a column with one value grades as well
    assert main([*words, "--out", str(tmp_path / "q.csv"), *truth, "always"]) == 0
    assert main([*words, "--out", str(tmp_path / "r.csv")]) == 0
    assert {row["value"] for row in csv.DictReader((tmp_path / "r.csv").open())} == {""}


def test_a_run_can_be_probed_by_values(run, folder):
    file = folder / "brightness.csv"
    report = tacit.probe(run, folder / "photos", values=file, column="brightness", device="cpu")
    assert [result.representation for result in report.results] == ["learned", "random twin", "raw pixels"]
    assert report["learned"].r2.value > 0.5
    assert len(list((run.folder / "probes").glob("*.json"))) == 1
    with pytest.raises(UsageError, match="all 60 values of the train part are 7"):
        tacit.probe(run, folder / "photos", values=file, column="always", device="cpu")


def test_mistakes_are_one_line(run, folder, labelled_folder, tmp_path):
    values = str(folder / "brightness.csv")
    for method, data, options, says in (
        (
            "supervised-regression",
            labelled_folder,
            {},
            "supervised-regression learns values, and the data have none",
        ),
        (
            "supervised",
            folder / "photos",
            {"values": values, "column": "brightness"},
            "supervised learns classes, ",
        ),
        (
            "supervised-regression",
            folder / "photos",
            {"values": values, "column": "always"},
            "all 100 values are 7, so there is nothing to learn: name another --column",
        ),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            tacit.fit(method, data, out=tmp_path / "x", epochs=1, **TINY, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"unknown ending of --out '\.txt'"):
        tacit.predict(run, folder / "photos", tmp_path / "p.txt")
    with pytest.raises(UsageError, match="--labels are of classes, and the run learned values"):
        tacit.predict(run, folder / "photos", tmp_path / "p.csv", labels=values)
