"""The whole way on the command line, on real images."""

import csv
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from tacit.cli.main import main
from tacit.training.run import Run
from tacit.training.watch import Watch

SMALL = ["--encoder", "tacit/convnet", "--batch-size", "16", "--device", "cpu", "--quiet"]


def fit(*words):
    assert main(["fit", *(str(word) for word in words)]) == 0


@pytest.fixture(scope="module")
def run(jpgs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "photos"
    fit("dcl", "--data", jpgs, "--epochs", 2, *SMALL, "--out", out)
    return out


def test_fit_leaves_a_run_folder(run, jpgs):
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert found == {
        "run.yaml",
        "metrics.csv",
        "encoder.safetensors",
        "encoder.json",
        "report.html",
        "checkpoints/last.pt",
    }
    settings = yaml.safe_load((run / "run.yaml").read_text())
    assert settings["data"] == str(jpgs)
    assert settings["method"]["name"] == "dcl"
    assert settings["record"]["data"]["samples"] == 64
    assert settings["record"]["data"]["labelled"] == 0
    rows = Run(run).metrics()
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert all(float(row["dcl"]) == float(row["loss"]) for row in rows)
    assert rows[-1]["effective_rank"]
    assert rows[-1]["knn"] == ""
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"<script|<link|src=|url\(http|@import", page)  # nothing is fetched to read it


def test_probe_shows_three_representations_and_writes_the_protocol(run, labelled_folder, capsys):
    assert main(["probe", str(run), "--data", str(labelled_folder), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines()[1:4]] == ["learned", "random twin", "raw pixels"]
    (path,) = (run / "probes").glob("*.json")
    report = json.loads(path.read_text())
    assert report["protocol"]["classes"] == ["china", "flower"]
    assert (report["protocol"]["train"], report["protocol"]["test"]) == (48, 16)
    learned = report["results"][0]["linear"]
    assert learned["low"] <= learned["accuracy"] <= learned["high"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "npz"])
def test_embed_writes_vectors_with_file_names(run, jpgs, tmp_path, ending):
    out = tmp_path / f"e.{ending}"
    assert main(["embed", str(run), "--data", str(jpgs), "--out", str(out), "--batch-size", "24"]) == 0
    if ending == "parquet":
        table = pyarrow.parquet.read_table(out).to_pydict()
        names, vectors = table["file"], np.array(table["embedding"])
        assert table["label"] == [None] * 64
    elif ending == "csv":
        with out.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0][:3] == ["file", "label", "e0"]
        names, vectors = [row[0] for row in rows[1:]], np.array([row[2:] for row in rows[1:]], float)
    else:
        held = np.load(out)
        names, vectors = held["name"].tolist(), held["embedding"]
    assert names == sorted(path.name for path in jpgs.iterdir())
    assert vectors.shape == (64, 128)
    expected = Run(run).encoder()
    from tacit.data.open import open_source
    from tacit.evaluation.features import encoder_features, extract

    features = extract(encoder_features(expected, "cpu"), open_source(jpgs, channels=3))
    assert np.allclose(vectors, features, atol=1e-6)


def test_labels_bring_a_knn_curve_and_a_best_checkpoint(labelled_folder, tmp_path):
    fit("simclr", "--data", labelled_folder, "--epochs", 2, *SMALL, "--out", tmp_path / "x")
    assert float(Run(tmp_path / "x").metrics()[-1]["knn"]) > 0.5
    assert Run(tmp_path / "x").best.is_file()
    fit(
        "simclr",
        "--data",
        labelled_folder,
        "--labels",
        "none",
        "--epochs",
        1,
        *SMALL,
        "--out",
        tmp_path / "y",
    )
    assert Run(tmp_path / "y").metrics()[-1]["knn"] == ""


def test_moco_with_a_timm_encoder(jpgs, tmp_path):
    out = tmp_path / "x"
    fit(
        "moco",
        "--data",
        jpgs,
        "--size",
        16,
        "--epochs",
        1,
        *SMALL,
        "--encoder",
        "timm/resnet18",
        "--out",
        out,
    )
    card = json.loads((out / "encoder.json").read_text())
    assert (card["spec"], card["num_features"], card["small_input"]) == ("timm/resnet18", 512, True)


def test_go_on_from_another_run(run, jpgs, tmp_path):
    fit("dcl", "--data", jpgs, "--epochs", 1, *SMALL, "--encoder", f"run:{run}", "--out", tmp_path / "x")
    assert json.loads((tmp_path / "x" / "encoder.json").read_text())["spec"] == "tacit/convnet"


def weights(folder):
    return (folder / "encoder.safetensors").read_bytes()


def test_a_configuration_repeats_a_run_exactly(run, jpgs, tmp_path, capsys):
    fit("--config", run / "run.yaml", "--out", tmp_path / "again")
    assert weights(tmp_path / "again") == weights(run)
    fit("--config", run / "run.yaml", "--seed", 1, "--out", tmp_path / "other")
    assert weights(tmp_path / "other") != weights(run)
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(["fit", "dcl", "--data", str(jpgs), "--epochs", "2", *SMALL, "--print_config"])
    assert done.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    fit("--config", tmp_path / "printed.yaml", "--out", tmp_path / "printed")
    assert weights(tmp_path / "printed") == weights(run)


METHODS = {
    "simclr": [],
    "dcl": [],
    "dclw": [],
    "moco": ["--method.queue", 40],
    "nnclr": ["--method.queue", 40, "--method.hidden", 32, "--method.prediction_hidden", 32],
}


@pytest.mark.parametrize("slug", METHODS)
def test_stopped_and_resumed_is_never_stopped(slug, jpgs, tmp_path, monkeypatch, capsys):
    words = [slug, "--data", jpgs, "--epochs", 2, *SMALL, *METHODS[slug]]
    fit(*words, "--out", tmp_path / "whole")
    after = Watch._after_step

    def stop_at_three(self, learner, done):
        if done == 3:
            self.signal = signal.SIGINT
        after(self, learner, done)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "_after_step", stop_at_three)
        code = main(["fit", *(str(word) for word in words), "--out", str(tmp_path / "stopped")])
    assert code == 130
    assert f"tacit fit --resume --out {tmp_path / 'stopped'}" in capsys.readouterr().err
    assert not (tmp_path / "stopped" / "encoder.json").exists()
    fit("--resume", "--out", tmp_path / "stopped")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    rows = [[r["step"], r["loss"]] for r in Run(tmp_path / "stopped").metrics()]
    assert rows == [[r["step"], r["loss"]] for r in Run(tmp_path / "whole").metrics()]


def test_resuming_with_other_settings_is_refused(run, jpgs, capsys):
    words = ["fit", "dcl", "--data", str(jpgs), "--epochs", "3", *SMALL, "--resume", "--out", str(run)]
    assert main(words) == 2
    assert "epochs was 2, now 3" in capsys.readouterr().err


def test_a_terminated_process_saves_and_says_how_to_go_on(jpgs, tmp_path):
    out = tmp_path / "x"
    command = [sys.executable, "-m", "tacit", "fit", "dcl", "--data", str(jpgs), "--epochs", "5000", *SMALL]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert (out / "checkpoints" / "last.pt").is_file()


@pytest.fixture(scope="module")
def thousand(photos, tmp_path_factory):
    """1,000 files, 20 of them broken in every way that the readers know."""
    folder = tmp_path_factory.mktemp("thousand")
    draw = np.random.default_rng(0)
    photo = photos["china"]
    for i in range(980):
        y, x = draw.integers(0, 400), draw.integers(0, 600)
        Image.fromarray(photo[y : y + 24, x : x + 24]).save(folder / f"good_{i:04}.jpg")
    whole = (folder / "good_0000.jpg").read_bytes()
    for i in range(4):
        (folder / f"truncated_{i}.jpg").write_bytes(whole[: len(whole) // 2])
        (folder / f"zero_{i}.jpg").write_bytes(b"")
        (folder / f"text_{i}.jpg").write_text("this is a letter")
        Image.fromarray(photo[:1, :1]).save(folder / f"dot_{i}.png")
    for i in range(2):
        Image.fromarray(photo[:24, :24]).convert("CMYK").save(folder / f"cmyk_{i}.jpg")
    frames = [Image.fromarray(photo[k : k + 24, :24]) for k in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (30_000, 8)).save(folder / "wide.png")
    assert len(list(folder.iterdir())) == 1000
    return folder


def test_twenty_broken_files_are_skipped_counted_and_listed(thousand, tmp_path):
    out = tmp_path / "x"
    fit(
        "dcl",
        "--data",
        thousand,
        "--epochs",
        1,
        *SMALL,
        "--batch-size",
        64,
        "--on-bad-file",
        "skip",
        "--out",
        out,
    )
    with (out / "skipped.csv").open(newline="") as file:
        skipped = list(csv.DictReader(file))
    assert len(skipped) == 20
    assert not [row for row in skipped if row["name"].startswith("good") or not row["reason"]]
    record = yaml.safe_load((out / "run.yaml").read_text())["record"]["data"]
    assert (record["samples"], record["skipped"]) == (980, 20)


def test_without_skip_the_first_broken_file_ends_it_in_one_line(thousand, tmp_path, capsys):
    code = main(
        ["fit", "dcl", "--data", str(thousand), "--epochs", "1", *SMALL, "--out", str(tmp_path / "x")]
    )
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert code == 1
    assert "animated.gif" in line  # the first by name
    assert "--on-bad-file skip" in line
    assert not (tmp_path / "x").exists()


def test_the_demo_goes_the_whole_way(tmp_path, capsys):
    pytest.importorskip("mlxtend")
    assert main(["demo", "--epochs", "1", "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    for table in out.split("labels")[2:]:
        accuracy = {line.split("  ")[0]: float(line[16:].split()[0]) for line in table.splitlines()[2:5]}
        assert accuracy.keys() == {"learned", "random twin", "raw pixels"}
    assert (tmp_path / "demo" / "neighbours.png").is_file()
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
