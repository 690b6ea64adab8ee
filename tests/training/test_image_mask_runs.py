"""Methods that learn masks, on pictures with masks: from a folder to PNGs of the pictures' own size."""

import csv

import numpy as np
import pytest
from PIL import Image

import tacit
from tacit.cli.main import main
from tacit.errors import UsageError

TINY = {
    **{"encoder": "tacit/unet2d?width=4", "size": 32, "epochs": 1, "batch_size": 2, "device": "cpu"},
    "quiet": True,
}
SLUGS = ("supervised-segmentation", "mean-teacher-segmentation", "ua-mt", "cps")


def disc(draw, height=40, width=60):
    """A bright disc on a dark ground, and its mask (0 and 255)."""
    radius, y, x = draw.uniform(6, 14), draw.uniform(12, height - 12), draw.uniform(12, width - 12)
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    grey = np.where(inside, 170, 60) + draw.normal(0, 15, inside.shape)
    return grey.clip(0, 255).astype(np.uint8), np.where(inside, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """24 pictures of 40 x 60 pixels, 16 with masks."""
    folder = tmp_path_factory.mktemp("discs")
    draw = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for i in range(24):
        picture, mask = disc(draw)
        Image.fromarray(picture).save(folder / "images" / f"{i:02}.png")
        if i < 16:
            Image.fromarray(mask).save(folder / "masks" / f"{i:02}.png")
    return folder


@pytest.mark.parametrize("slug", SLUGS)
def test_a_pass_of_each_method_and_pngs_of_the_pictures_size(slug, discs, tmp_path):
    run = tacit.fit(slug, discs, out=tmp_path / "run", labelled=4, **TINY)
    record = run.settings()["record"]
    assert record["labels"]["learned"] == {"masks": 4}
    assert record["data"]["shape"][0] == 1
    assert 0 <= float(run.metrics()[-1]["dice"]) <= 1
    found = tacit.predict(run.folder, discs, tmp_path / "out", device="cpu")
    assert found.samples == 24
    assert len(found.grades.cases) == 16
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
        assert mask.shape == (40, 60)
        assert set(np.unique(mask)) <= {0, 1}
        assert int(row["px_1"]) == (mask == 1).sum()
        truth = discs / "masks" / row["file"].rpartition("/")[2]
        assert bool(row["dice_1"]) == truth.is_file()
        if truth.is_file():
            true = np.asarray(Image.open(truth)) > 0
            both = mask.astype(bool) & true
            dice = 2 * both.sum() / (mask.astype(bool).sum() + true.sum())
            assert float(row["dice_1"]) == pytest.approx(dice, abs=1e-4)


def test_some_passes_find_the_disc_where_it_is(discs, tmp_path):
    settings = {**TINY, "epochs": 30, "lr": 3e-3}
    run = tacit.fit("supervised-segmentation", discs, out=tmp_path / "run", labelled=8, **settings)
    found = tacit.predict(run.folder, discs, tmp_path / "out", device="cpu")
    assert found.grades.dice[0] > 0.8


def test_pictures_without_any_mask_get_masks_too(discs, tmp_path):
    run = tacit.fit("supervised-segmentation", discs, out=tmp_path / "run", labelled=4, **TINY)
    found = tacit.predict(run.folder, discs / "images", tmp_path / "out", device="cpu")
    assert found.grades is None
    assert len(list((tmp_path / "out").glob("*.png"))) == 24


def test_a_resumed_run_ends_as_one_that_was_not_stopped(discs, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from tacit.training import running

    class Stop(Exception):
        pass

    after = running.Watch.on_train_batch_end

    def stopping(self, trainer, learner, *args):
        after(self, trainer, learner, *args)
        if learner.index == 3:
            raise Stop

    settings = {**TINY, "labelled": 4, "save_every": 0.0}
    whole = tacit.fit("ua-mt", discs, out=tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(running.Watch, "on_train_batch_end", stopping)
        with pytest.raises(Stop):
            tacit.fit("ua-mt", discs, out=tmp_path / "part", **settings)
    part = tacit.fit("ua-mt", discs, out=tmp_path / "part", resume=True, **settings)
    for name in ("encoder", "predictor"):
        one, other = (load_file(run.folder / f"{name}.safetensors") for run in (whole, part))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fit", "tracoco"], "tracoco learns from volumes, and the data are images"),
        (["fit", "fixmatch"], "fixmatch learns classes, and the labels of these data are masks"),
        (["fit", "cps", "--size", "30"], "multiples of 16, not 30: pass --size 32"),
        (["fit", "cps", "--encoder", "tacit/convnet"], "gives no full-resolution maps"),
        (["fit", "cps", "--labels", "none"], "cps learns masks, and the data have none"),
        (["fit", "cps", "--labels-per-class", "3"], "--labels-per-class means nothing to it"),
        (["fit", "cps", "--masks", "absent"], "absent"),
    ],
)
def test_mistakes_are_one_line(words, says, discs, tmp_path, capsys):
    words = [*words, "--data", str(discs), "--out", str(tmp_path / "x"), "--device", "cpu", "--quiet"]
    assert main(words) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not (tmp_path / "x" / "run.yaml").exists()


def test_a_curve_of_masks_is_graded_by_dice_and_goes_on(discs, tmp_path, monkeypatch):
    asked = {"methods": "cps", "budgets": "2,4", "seeds": 2, "steps": 4, "jobs": 1, "quiet": True}
    asked |= {"encoder": TINY["encoder"], "size": 32, "out": tmp_path / "curve"}
    outcome = tacit.curve(discs, **asked)
    assert [(p.budget, p.method) for p in outcome.points] == [
        (2, "supervised-segmentation"),
        (2, "cps"),
        (4, "supervised-segmentation"),
        (4, "cps"),
    ]
    assert {floor.method for floor in outcome.floors} == {"background only", "mean mask"}
    assert all(0 <= value <= 100 for point in outcome.points for value in point.values)
    row = outcome.rows()[0]
    assert {"masks", "Dice in % [95 %]", "gain over supervised-segmentation [95 %]"} <= row.keys()
    kept = sorted((tmp_path / "curve" / "cells").glob("*.json"))
    assert len(kept) == 8
    kept[3].unlink()
    stamps = [path.stat().st_mtime_ns for path in kept if path.exists()]
    again = tacit.curve(discs, **asked)
    assert again.rows() == outcome.rows()
    assert [path.stat().st_mtime_ns for path in kept if path != kept[3]] == stamps


def test_a_curve_of_masks_and_classes_at_once_is_refused(discs, tmp_path):
    with pytest.raises(UsageError, match="a curve compares methods for one kind of labels"):
        tacit.curve(discs, methods="cps,fixmatch", out=tmp_path / "c")


def test_very_small_pictures_are_learned_from(tmp_path):
    # 16 pixels become one at the bottleneck: a batch of one picture has no statistics there
    draw = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "small" / part).mkdir(parents=True)
    for i in range(8):
        picture, mask = disc(draw, 32, 32)
        Image.fromarray(picture[8:24, 8:24]).save(tmp_path / "small" / "images" / f"{i}.png")
        Image.fromarray(mask[8:24, 8:24]).save(tmp_path / "small" / "masks" / f"{i}.png")
    settings = {**TINY, "size": None}
    run = tacit.fit("supervised-segmentation", tmp_path / "small", out=tmp_path / "run", **settings)
    assert run.finished


def test_masks_beside_pictures_are_no_classes(discs, labelled_folder, tmp_path):
    classes = {**TINY, "encoder": "tacit/convnet?width=4", "size": 24, "channels": 1}
    run = tacit.fit("supervised", labelled_folder, out=tmp_path / "run", labels_per_class=4, **classes)
    found = tacit.predict(run.folder, discs, tmp_path / "p.csv", device="cpu")
    assert found.grades is None
    tacit.embed(run, discs, tmp_path / "e.csv", device="cpu")
    with (tmp_path / "e.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {""}
