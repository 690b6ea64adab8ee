"""Whole runs of methods that learn masks, as small as they get, through `tacit.fit` and `tacit.predict`."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tacit
from balls import ball, ball_folder, save
from tacit.cli.main import main
from tacit.data.open import open_source
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.methods.distillation.alice import mining
from tacit.methods.distillation.alice.anatomy_training import train_matcher
from tacit.methods.registry import own_methods
from tacit.methods.segmentation.supervised_segmentation import SupervisedSegmentation
from tacit.rng import Rng
from tacit.tasks.masks import online, segmenter
from tacit.tasks.masks.online import MaskProbe
from tacit.training import running
from tacit.training.forecast import Forecast

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("monai")

NET = "tacit/unet3d?width=4&depth=3"
TINY = {"encoder": NET, "device": "cpu", "quiet": True, "epochs": 1, "patch": (16, 16, 16), "batch_size": 2}
ALICE = {"miner_steps": 2, "mask_block": 8, "prototypes": 16, "hidden": 16, "bottleneck": 8}
SLUGS = [slug for slug, entry in own_methods().items() if entry.family == "segmentation"]


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return ball_folder(tmp_path_factory.mktemp("balls"))


def weights(run):
    files = ("encoder.safetensors", "predictor.safetensors")
    return {f"{file} {k}": v for file in files for k, v in load_file(run.folder / file).items()}


@pytest.mark.parametrize("slug", SLUGS)
def test_a_pass_of_each_method_and_masks(slug, balls, tmp_path):
    run = tacit.fit(slug, balls, out=tmp_path / "run", labelled=4, **TINY)
    record = run.settings()["record"]
    assert record["labels"]["learned"] == {"masks": 4}
    assert record["labels"]["held_out"] == {"masks": 1}
    assert record["data"]["samples"] == 8
    assert 0 <= float(run.metrics()[-1]["dice"]) <= 1
    card = json.loads((run.folder / "predictor.json").read_text())
    assert card["classes"] == ["background", "1"]
    assert card["held_out"] == 1
    found = tacit.predict(run.folder, balls, tmp_path / "masks", device="cpu")
    assert found.samples == 9
    assert len(found.grades.cases) == 9
    with (found.path / "volumes.csv").open() as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        original = nibabel.load(balls / row["file"])
        mask = nibabel.load(found.path / row["mask"])
        assert mask.shape == original.shape
        np.testing.assert_allclose(mask.affine, original.affine)
        voxels = np.asarray(mask.dataobj)
        assert voxels.dtype == np.uint8
        assert float(row["ml_1"]) == pytest.approx((voxels == 1).sum() * 2 / 1000, abs=1e-4)
        truth = np.asarray(nibabel.load(balls / row["file"].replace("images", "labels")).dataobj)
        total = (voxels == 1).sum() + (truth == 1).sum()
        assert float(row["dice_1"]) == pytest.approx(
            2 * ((voxels == 1) & (truth == 1)).sum() / total, abs=1e-4
        )
        assert found.grades.cases[i][0].dice == pytest.approx(float(row["dice_1"]), abs=1e-4)


def test_a_few_hundred_steps_find_the_ball(balls, tmp_path):
    run = tacit.fit(
        "supervised-segmentation",
        balls,
        out=tmp_path / "run",
        **{**TINY, "epochs": 25, "lr": 0.05},
        labelled=6,
    )
    found = tacit.predict(run.folder, balls, tmp_path / "masks", device="cpu")
    assert found.grades.dice[0] > 0.8
    assert sum(e.prediction for e in found.grades.empty) == 0
    assert "Dice" in str(found.grades)


@pytest.fixture
def stopped(monkeypatch):
    """Calls something and stops its run after the third step, as a kill does."""

    class Stop(Exception):
        pass

    after = running.Watch.on_train_batch_end

    def stopping(self, trainer, learner, *args):
        after(self, trainer, learner, *args)
        if learner.index == 3:
            raise Stop

    def call(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(running.Watch, "on_train_batch_end", stopping)
            with pytest.raises(Stop):
                tacit.fit(*args, **kwargs)

    return call


@pytest.mark.parametrize("slug", ["tracoco", "ua-mt", "urpc"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(slug, balls, tmp_path, stopped):
    settings = {**TINY, "epochs": 2, "labelled": 4, "save_every": 0.0}
    whole = tacit.fit(slug, balls, out=tmp_path / "whole", **settings)
    stopped(slug, balls, out=tmp_path / "part", **settings)
    part = tacit.fit(slug, balls, out=tmp_path / "part", resume=True, **settings)
    one, other = weights(whole), weights(part)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_alice_has_its_miner_already(balls, tmp_path, stopped, monkeypatch, capsys):
    taught = []

    def teach(*args, **kwargs):
        taught.append(kwargs["steps"])
        train_matcher(*args, **kwargs)

    monkeypatch.setattr(mining, "train_matcher", teach)
    settings = {**TINY, "epochs": 2, "save_every": 0.0, "options": ALICE}
    whole = tacit.fit("alice", balls, out=tmp_path / "whole", **settings)
    stopped("alice", balls, out=tmp_path / "part", **{**settings, "quiet": False})
    assert "an anatomical embedding learns first, 2 steps" in capsys.readouterr().err
    part = tacit.fit("alice", balls, out=tmp_path / "part", resume=True, **{**settings, "quiet": False})
    assert taught == [2, 2]
    assert "embedding learns" not in capsys.readouterr().err
    one, other = (load_file(run.folder / "encoder.safetensors") for run in (whole, part))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_probe_knows_beforehand_how_many_patches_it_takes(balls, monkeypatch):
    source = open_source(balls, patch=(16, 16, 16), progress=False)
    encoder = build_encoder(NET, channels=1, patch=(16, 16, 16))
    method = SupervisedSegmentation(encoder)
    method.prepare(source)
    probe = MaskProbe(source, np.arange(8), Rng.of(0), np.array([1, 4, 6]), method)
    taken, logits = [], online.dense_logits
    counted = lambda network, x: (taken.append(len(x)), logits(network, x))[1]  # noqa: E731
    for module in (online, segmenter):
        monkeypatch.setattr(module, "dense_logits", counted)
    assert 0 <= probe.measure(encoder, torch.device("cpu"))["dice"] <= 1
    assert sum(taken) == probe.passes > 3


def test_the_forecast_counts_the_patches_of_probes(balls, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Forecast, "seconds", lambda self, steps: float(steps))  # of one second each
    monkeypatch.setattr(MaskProbe, "passes", 120)
    settings = {**TINY, "epochs": 4, "quiet": False, "labelled": 4, "mu": 1.0}
    tacit.fit("supervised-segmentation", balls, out=tmp_path / "run", **settings)
    # after 10 of 16 steps, a probe follows step 12 and step 16: a patch takes a third of one of a step's 4
    assert "forecast: about 26 s left for steps 11 to 16" in capsys.readouterr().err


def test_a_learned_encoder_is_tuned_on_masks(balls, tmp_path):
    first = tacit.fit("supervised-segmentation", balls, out=tmp_path / "first", **TINY)
    settings = {**TINY, "encoder": f"run:{first.folder}", "epochs": 1}
    del settings["patch"]
    second = tacit.fit("cps", balls, out=tmp_path / "second", labelled=2, lr=1e-9, **settings)
    before, after = (load_file(run.folder / "encoder.safetensors") for run in (first, second))
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-5, rtol=1e-4)
    assert json.loads((second.folder / "encoder.json").read_text())["form"]["patch"] == [16, 16, 16]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_what_is_learned(workers, balls, tmp_path):
    run = tacit.fit("tracoco", balls, out=tmp_path / "run", labelled=4, workers=workers, **TINY)
    base = tacit.fit("tracoco", balls, out=tmp_path / "base", labelled=4, workers=0, **TINY)
    assert all(torch.equal(a, b) for a, b in zip(weights(run).values(), weights(base).values(), strict=True))


def test_three_classes_and_a_slice_network(tmp_path):
    folder = ball_folder(tmp_path / "data", count=6, masks=6, classes=3)
    settings = {**TINY, "encoder": "tacit/unet2d?width=4", "patch": (16, 16, 1)}
    run = tacit.fit("mean-teacher-segmentation", folder, out=tmp_path / "run", labelled=3, **settings)
    found = tacit.predict(run.folder, folder, tmp_path / "masks", device="cpu")
    assert found.grades.classes == ("1", "2")


def test_the_command_line_from_volumes_to_masks(balls, tmp_path, capsys):
    out, masks = str(tmp_path / "run"), str(tmp_path / "masks")
    words = ["--labelled", "3", "--encoder", NET, "--patch", "16,16,16", "--epochs", "1", "--device", "cpu"]
    assert main(["fit", "tracoco", "--data", str(balls), "--out", out, *words]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "tacit predict" in last or ("is below" in last and "try" in last)  # four steps may be too few
    assert main(["predict", out, "--data", str(balls), "--out", masks, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "Dice" in said
    assert "not found" in said
    assert "9 masks and volumes.csv" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "fixmatch"], "fixmatch learns from images, and the data are volumes"),
        (["fit", "mean-teacher"], "did you mean mean-teacher-segmentation?"),
        (["fit", "tracoco", "--labels-per-class", "3"], "pass --labelled"),
        (["fit", "tracoco", "--labelled", "0"], "labelled must be at least 1"),
        (["fit", "tracoco", "--size", "16"], "--patch"),
        (["fit", "tracoco", "--patch", "big"], "patch is three numbers such as 48,48,32, or one, not 'big'"),
        (["fit", "tracoco", "--encoder", "timm/resnet18"], "gives no full-resolution maps"),
        (["fit", "tracoco", "--encoder", NET, "--patch", "17,16,16"], "multiples of 8"),
        (["fit", "tracoco", "--encoder", NET, "--labels", "none"], "learns masks, and the data have none"),
    ],
)
def test_mistakes_are_one_line(words, said, balls, tmp_path, capsys):
    extra = ["--data", str(balls), "--out", str(tmp_path / "run"), "--device", "cpu", "--epochs", "1"]
    assert main([*words, *extra]) in (1, 2)
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1


def test_masks_of_an_earlier_prediction_are_replaced_and_true_ones_can_be_left_aside(balls, tmp_path):
    run = tacit.fit("supervised-segmentation", balls, out=tmp_path / "run", **TINY)
    first = tacit.predict(run.folder, balls, tmp_path / "masks", labels="none", device="cpu")
    assert first.grades is None
    second = tacit.predict(run.folder, balls, tmp_path / "masks", device="cpu")
    assert len(second.grades.cases) == 9
    assert "dice_1" in (tmp_path / "masks" / "volumes.csv").read_text().splitlines()[0]


def test_two_volumes_of_one_name_are_refused(balls, tmp_path):
    run = tacit.fit("supervised-segmentation", balls, out=tmp_path / "run", **TINY)
    voxels, _ = ball((16, 16, 16), 0)
    save(tmp_path / "twins" / "a.nii", voxels)
    save(tmp_path / "twins" / "a.nii.gz", voxels)
    with pytest.raises(UsageError, match="would have one name"):
        tacit.predict(run.folder, tmp_path / "twins", tmp_path / "masks")


def test_the_window_of_a_run_can_be_said_again_and_pretraining_sees_no_masks(balls, tmp_path):
    settings = {**TINY, "window": "-100,200", "batch_size": 4}
    first = tacit.fit("alice", balls, out=tmp_path / "first", options={**ALICE, "miner": "same"}, **settings)
    assert first.settings()["window"] == "-100.0,200.0"
    tuned = {**settings, "encoder": f"run:{first.folder}"}
    second = tacit.fit("supervised-segmentation", balls, out=tmp_path / "second", **tuned)
    assert json.loads((second.folder / "encoder.json").read_text())["form"]["window"] == "-100.0,200.0"
    apart = tmp_path / "apart"
    shutil.copytree(balls / "images", apart)
    shutil.copytree(balls / "labels", apart / "annotated")
    settings = {**settings, "masks": str(apart / "annotated"), "pretrain": "swav-like"}
    with pytest.raises(UsageError, match="unknown method 'swav-like'"):
        tacit.fit("supervised-segmentation", apart, out=tmp_path / "third", **settings)
    settings |= {"pretrain": "joint-image-volume", "labelled": 0}
    with pytest.raises(UsageError, match="labelled must be at least 1"):  # before the pretraining
        tacit.fit("supervised-segmentation", apart, out=tmp_path / "third", **settings)
    assert not (tmp_path / "third-joint-image-volume").exists()


@pytest.mark.parametrize(
    ("slug", "options", "said"),
    [
        ("tracoco", {"compat": "offical"}, "unknown tracoco.compat 'offical'; did you mean 'official'"),
        ("mean-teacher-segmentation", {"keep": "Teacher"}, "did you mean 'teacher'"),
        ("cps", {"pseudo": 3}, "unknown cps.pseudo '3'"),
    ],
)
def test_a_word_that_is_no_option_is_refused_in_python_too(slug, options, said, balls, tmp_path):
    with pytest.raises(UsageError, match=said):
        tacit.fit(slug, balls, out=tmp_path / "run", options=options, **TINY)


def test_masks_are_refused_where_none_were_learned(balls, labelled_folder, tmp_path):
    run = tacit.fit("supervised-segmentation", balls, out=tmp_path / "run", **TINY)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="masks go into a folder"):
        tacit.predict(run.folder, balls, tmp_path / "file")
    before = (balls / "images" / "case00.nii.gz").read_bytes()
    for inside in (balls, balls / "labels", balls / "new"):
        with pytest.raises(UsageError, match=r"lies in .*, where a later run would take predictions as true"):
            tacit.predict(run.folder, balls, inside)
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "images" / "case00.nii.gz").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"would replace .*case00.nii.gz: choose another --out"):
        tacit.predict(run.folder, balls, tmp_path / "own")
    assert (tmp_path / "own" / "images" / "case00.nii.gz").read_bytes() == b"mine"
    assert (balls / "images" / "case00.nii.gz").read_bytes() == before
    with pytest.raises(UsageError, match="holds images"):
        tacit.predict(run.folder, labelled_folder, tmp_path / "masks")
    with pytest.raises(UsageError, match=r"overlap must lie in \[0, 1\)"):
        tacit.predict(run.folder, balls, tmp_path / "masks", overlap=1.0)


def test_a_volume_encoder_is_probed_and_embeds(balls, tmp_path):
    run = tacit.fit("supervised-segmentation", balls, out=tmp_path / "run", **TINY)
    labels = tmp_path / "labels.csv"
    names = [f"images/case{i:02}.nii.gz" for i in range(9)]
    labels.write_text("file,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    report = tacit.probe(run, balls, labels=str(labels), device="cpu")
    assert [r.representation for r in report.results] == ["learned", "random twin", "raw pixels"]
    tacit.embed(run, balls, tmp_path / "e.npz", device="cpu")
    with np.load(tmp_path / "e.npz") as found:
        assert found["embedding"].shape == (9, 32)


@pytest.mark.parametrize("method", ["fixmatch", "supervised"])
def test_a_curve_of_volumes_is_refused_before_its_first_run(method, balls, tmp_path, capsys):
    words = ["curve", "--data", str(balls), "--methods", method, "--out", str(tmp_path / "curve")]
    assert main(words) == 2
    assert f"{method} learns from images, and the data are volumes" in capsys.readouterr().err
    assert not (tmp_path / "curve").exists()


def test_words_about_slices_are_spelled_in_one_way_and_the_run_resumes(balls, tmp_path):
    settings = {"encoder": "tacit/convnet?width=4", "size": 16, "epochs": 1, "batch_size": 8}
    where, common = f"slices:{balls / 'images'}", {**settings, "out": tmp_path / "run", "quiet": True}
    run = tacit.fit("simclr", where, spacing=(2.0, 2, 2), window="0, 1", device="cpu", **common)
    assert run.settings()["spacing"] == "2,2,2"
    assert run.settings()["window"] == "0.0,1.0"
    assert main(["fit", "--resume", "--out", str(run.folder), "--quiet"]) == 0
