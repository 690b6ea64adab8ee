"""Mistakes of a newcomer: each gets one line that says what, where and the mend, and a fitting exit code."""

import importlib

import pytest
import yaml

from tacit.cli.main import main
from tacit.training.checkpoint import Checkpoint

FIT = ["--encoder", "tacit/convnet", "--epochs", "1", "--batch-size", "16", "--device", "cpu", "--quiet"]


@pytest.fixture
def answer(capsys):
    """Run the command line; returns (exit code, the one line on standard error)."""

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        assert "unexpectedly" not in captured.err
        return code, lines[0]

    return run


def test_unknown_method(answer, jpgs):
    assert answer("fit", "dlc", "--data", jpgs) == (2, "tacit: unknown method 'dlc'; did you mean 'dcl'?")


def test_unknown_encoder(answer, jpgs, tmp_path):
    code, line = answer(
        "fit", "dcl", "--data", jpgs, *FIT, "--encoder", "timm/resnet81", "--out", tmp_path / "x"
    )
    assert code == 2
    assert "unknown encoder 'timm/resnet81'; did you mean 'timm/resnet" in line
    assert not (tmp_path / "x").exists()


def test_empty_folder(answer, tmp_path):
    (tmp_path / "empty").mkdir()
    code, line = answer("fit", "dcl", "--data", tmp_path / "empty", *FIT, "--out", tmp_path / "x")
    assert code == 2
    assert "empty" in line


def test_absent_folder(answer, jpgs, tmp_path):
    code, line = answer("fit", "dcl", "--data", str(jpgs)[:-2] + "x", *FIT, "--out", tmp_path / "x")
    assert code == 2
    assert str(jpgs)[:-2] in line


def test_wrong_type_for_an_option(answer, jpgs):
    code, line = answer("fit", "dcl", "--data", jpgs, "--epochs", "two")
    assert (code, line) == (2, "tacit: option --epochs takes a whole number, not 'two'")
    code, line = answer("fit", "dcl", "--data", jpgs, "--method.temperature", "warm")
    assert (code, line) == (2, "tacit: option --method.temperature takes a number, not 'warm'")
    code, line = answer("fit", "dcl", "--data", jpgs, "--precision", "64")
    assert (code, line) == (2, "tacit: option --precision takes one of auto, 32, bf16, not '64'")


def test_unknown_option(answer, jpgs):
    code, line = answer("fit", "dcl", "--data", jpgs, "--epoch", "3")
    assert (code, line) == (2, "tacit: unknown option '--epoch'; did you mean '--epochs'?")
    code, line = answer("fit", "dcl", "--data", jpgs, "--method.temprature", "3")
    assert (code, line) == (
        2,
        "tacit: unknown option '--method.temprature'; did you mean '--method.temperature'?",
    )


def test_probing_a_folder_that_is_no_run(answer, jpgs, labelled_folder):
    code, line = answer("probe", jpgs, "--data", labelled_folder)
    assert code == 2
    assert "holds no encoder" in line
    assert "tacit fit" in line


def test_a_run_that_exists(answer, jpgs, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.yaml").write_text(yaml.safe_dump({"method": {"name": "dcl"}}))
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "last.pt").write_bytes(b"")
    code, line = answer("fit", "dcl", "--data", jpgs, *FIT, "--out", out)
    assert code == 2
    assert "unfinished run" in line
    assert "--resume" in line
    (out / "encoder.json").write_text("{}")
    assert "finished run" in answer("fit", "dcl", "--data", jpgs, *FIT, "--out", out)[1]


def test_a_folder_that_holds_something_else(answer, jpgs, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, line = answer("fit", "dcl", "--data", jpgs, *FIT, "--out", tmp_path)
    assert code == 2
    assert "is not a run" in line


def test_fewer_images_than_a_batch(answer, jpgs, tmp_path):
    code, line = answer("fit", "dcl", "--data", jpgs, *FIT, "--batch-size", "256", "--out", tmp_path / "x")
    assert code == 2
    assert "64 samples are fewer than one batch of 256: pass --batch-size 64" in line


def test_a_csv_that_names_absent_images(answer, jpgs, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\n000.jpg,a\n900.jpg,b\n")
    code, line = answer(
        "fit", "dcl", "--data", jpgs, "--labels", tmp_path / "labels.csv", *FIT, "--out", tmp_path / "x"
    )
    assert code == 2
    assert "900.jpg" in line


def test_an_extra_that_is_not_installed(answer, tmp_path, monkeypatch):
    def absent(name, *args):
        if name.split(".")[0] == "datasets":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *args)

    real = importlib.import_module
    monkeypatch.setattr("tacit.errors.import_module", absent)
    code, line = answer("fit", "dcl", "--data", "hf:beans", *FIT, "--out", tmp_path / "x")
    assert code == 2
    assert "pip install 'tacit[hub]'" in line


def test_a_text_file_called_jpg(answer, jpgs, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_text("not an image")
    for i in range(20):
        (folder / f"b{i:02}.jpg").write_bytes((jpgs / "000.jpg").read_bytes())
    code, line = answer("fit", "dcl", "--data", folder, *FIT, "--out", tmp_path / "x")
    assert code == 1
    assert "a.jpg" in line
    assert "--on-bad-file skip" in line


def test_nothing_said(answer):
    assert "which method?" in answer("fit")[1]
    assert "which data?" in answer("fit", "dcl")[1]
    assert "which run?" in answer("fit", "--resume")[1]
    assert answer("probe")[0] == 2
    assert answer("embed", "x")[0] == 2
    assert answer("nonsense") == (
        2,
        "tacit: unknown command 'nonsense'; known: claim, curve, demo, embed, fit, methods, predict, probe",
    )


def test_no_run_to_resume(answer, tmp_path):
    code, line = answer("fit", "--resume", "--out", tmp_path / "absent")
    assert code == 2
    assert "no run to resume" in line


def test_a_configuration_that_is_none(answer, tmp_path):
    path = tmp_path / "c.yaml"
    assert answer("fit", "--config", path)[0] == 2
    path.write_text("a: [")
    assert "is no YAML" in answer("fit", "--config", path)[1]
    path.write_text("epochs: 3")
    assert "names no method" in answer("fit", "--config", path)[1]
    path.write_text("method: {name: simclr}")
    assert "for the method 'simclr', not 'dcl'" in answer("fit", "dcl", "--config", path)[1]


def test_an_ending_that_embed_does_not_write(answer, jpgs):
    code, line = answer("embed", "tacit/convnet", "--data", jpgs, "--out", "vectors.paquet")
    assert (code, line) == (2, "tacit: unknown ending of --out '.paquet'; did you mean '.parquet'?")


def test_no_such_device(answer, jpgs, tmp_path):
    code, line = answer("fit", "dcl", "--data", jpgs, *FIT, "--device", "tpu9", "--out", tmp_path / "x")
    assert code == 2
    assert "no device 'tpu9'" in line


def test_a_wrong_option_does_not_burn_the_folder(answer, jpgs, tmp_path):
    words = ["fit", "dcl", "--data", jpgs, *FIT, "--out", tmp_path / "x"]
    assert "unknown optimizer 'sdg'; did you mean" in answer(*words, "--optimizer", "sdg")[1]
    assert "temperature" in answer(*words, "--method.temperature", "0")[1]
    assert main([str(word) for word in words]) == 0


def test_a_diverging_run_stops_and_keeps_its_last_good_checkpoint(answer, jpgs, tmp_path):
    words = ["fit", "dcl", "--data", jpgs, *FIT, "--optimizer", "momentum", "--lr", "1e30"]
    code, line = answer(*words, "--epochs", "3", "--warmup", "0", "--out", tmp_path / "x")
    assert code == 1
    assert "the loss is nan" in line
    assert "--lr" in line
    saved = Checkpoint.load(tmp_path / "x" / "checkpoints" / "last.pt")
    assert saved.step == 1
    assert not (tmp_path / "x" / "encoder.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--accumulate", 0], "accumulate must be at least 1"),
        (["--devices", 0], "devices must be at least 1"),
        (["--workers", -1], "workers must be at least 0"),
        (["--size", 0], "size must be at least 4"),
        (["--encoder", "tacit/convnet?depth=0"], "depth of at least 1"),
        (["--method.projection", 0], "at least 1 unit"),
        (["--out", ""], "--out is empty"),
        (["--data", ""], "are not named"),
    ],
)
def test_numbers_and_names_that_make_no_sense(answer, jpgs, tmp_path, words, message):
    code, line = answer("fit", "dcl", "--data", jpgs, *FIT, "--out", tmp_path / "x", *words)
    assert code == 2
    assert message in line
    assert not (tmp_path / "x").exists()


def test_probing_with_numbers_that_make_no_sense(answer, labelled_folder, tmp_path):
    words = ["probe", "tacit/convnet", "--data", labelled_folder]
    assert answer(*words, "--k", 0)[0] == 2
    assert answer(*words, "--batch-size", 0)[0] == 2
    assert answer("probe", "resnet18", "--data", labelled_folder) == (
        2,
        "tacit: encoder 'resnet18' names no family; did you mean 'timm/resnet18'?",
    )
    out = tmp_path / "e.csv"
    assert (
        answer("embed", "tacit/convnet", "--data", labelled_folder, "--out", out, "--batch-size", -4)[0] == 2
    )
    assert not out.exists()


def test_a_bug_is_one_line_too(capsys, monkeypatch):
    def broken(name):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("tacit.cli.main.import_module", broken)
    code, line = main(["methods"]), capsys.readouterr().err
    assert code == 1
    assert "failed unexpectedly (ZeroDivisionError: division by zero)" in line


def test_bare_tacit_helps(capsys):
    assert main([]) == 2
    assert "usage: tacit VERB" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0


def test_columns_of_label_files(answer, jpgs, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    table.write_text(
        "photo,sex,kind\n" + "".join(f"{i:03},{'mf'[i % 2]},{'ab'[i // 32]}\n" for i in range(64))
    )
    named = ["--data", jpgs, "--labels", table]
    message = (
        "labels.csv has several columns that may have the labels (sex, kind): name one with --label-column"
    )
    for words in (
        ("fit", "supervised", *named, *FIT, "--out", tmp_path / "x"),
        ("probe", "tacit/convnet", *named, "--device", "cpu"),
        ("embed", "tacit/convnet", *named, "--out", tmp_path / "e.csv", "--device", "cpu"),
        ("curve", *named, "--out", tmp_path / "c"),
    ):
        code, line = answer(*words)
        assert code == 2
        assert line.endswith(message)
    columns = ["--label-column", "kind", "--file-column", "photo"]
    words = ["embed", "tacit/convnet", *named, *columns, "--out", tmp_path / "e.csv", "--device", "cpu"]
    assert main(list(map(str, words))) == 0
    assert "files in 'photo'" in capsys.readouterr().err
    labels = [line.split(",")[1] for line in (tmp_path / "e.csv").read_text().splitlines()[1:]]
    assert labels == ["a"] * 32 + ["b"] * 32
    code, line = answer("probe", "tacit/convnet", "--data", jpgs, "--label-column", "kind")
    assert code == 2
    assert line.endswith("label_column 'kind' is of a file of labels: name the file with labels")
