"""Configurations and runs to resume that strangers wrote: no code is imported that they name."""

import os
import re
import sys

import pytest
import yaml

from tacit.cli.configuration import read_configuration
from tacit.cli.main import main
from tacit.errors import UsageError

MODULE = "strange_module_of_a_configuration"
FIT = [
    "--encoder",
    "tacit/convnet?width=4",
    "--epochs",
    "1",
    "--batch-size",
    "16",
    "--device",
    "cpu",
    "--quiet",
]
OPENED: list[str] = []


def _hook(event, arguments):
    if event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(_hook)


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """A folder on the path with a method whose import makes the folder `executed`, and a file of settings."""
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(
        f"import os\nos.makedirs({str(folder / 'executed')!r}, exist_ok=True)\n"
        "from tacit.methods.contrastive.simclr import SimCLR\n"
        "class Mine(SimCLR):\n    '''Mine.'''\n"
    )
    (folder / "more.yaml").write_text("blur: 0.25\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop(MODULE, None)


def answer(capsys, *words):
    code = main([str(word) for word in words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "unexpectedly" not in lines[0]
    assert len(lines[0]) < 700
    return code, lines[0]


def settings(jpgs, **changes):
    method = {"name": "simclr", "projection": 4} | changes.pop("method", {})
    return {"data": str(jpgs), "method": method} | changes


STRANGE = [
    ({"method": {"name": f"{MODULE}:Mine"}}, "names code, 'strange_module_of_a_configuration:Mine'"),
    ({"method": {"name": f"{MODULE}.Mine"}}, "unknown method in"),
    ({"pretrain": f"{MODULE}:Mine"}, "names code"),
    ({"method": {"augment": {"class_path": f"{MODULE}.Mine"}}}, "has 'class_path'"),
    ({"method": {"augment": {"class_path": f"{MODULE}.Mine", "init_args": {}}}}, "files have plain values"),
    ({"method": {"augment": f"{MODULE}.Mine"}}, "method.augment is .*, and must be names and values"),
    ({"method": {"augment": "STRANGE/more.yaml"}}, "method.augment is .*, and must be names and values"),
    ({"method": {"augment.class_path": f"{MODULE}.Mine"}}, "has 'augment.class_path'"),
    ({"method": {"augment": {"blur": {"class_path": f"{MODULE}.Mine"}}}}, "has 'class_path'"),
    ({"method": {"temperature": [{"class_path": f"{MODULE}.Mine"}]}}, "has 'class_path'"),
    ({"method": {"other": f"{MODULE}.Mine"}}, "method.other is .*, and must be a number or a word"),
    ({"method": {"__path__": "x"}}, "__path__"),
    ({"method.augment.class_path": f"{MODULE}.Mine"}, "unknown setting"),
    ({"method.augment": f"{MODULE}.Mine"}, "unknown setting"),
    ({"config": "STRANGE/more.yaml"}, "unknown setting in --config .* 'config'"),
    ({"print_config": "x"}, "unknown setting"),
    ({"epochs": {"class_path": f"{MODULE}.Mine"}}, "has 'class_path'"),
    ({"encoder": {"class_path": f"{MODULE}.Mine"}}, "has 'class_path'"),
    ({"encoder": "timm/resnet18?checkpoint_path=STRANGE/more.yaml"}, "unknown option of timm/resnet18"),
    ({"epochs": "many"}, "option --epochs takes a whole number"),
    ({"epochs": float("nan")}, "option --epochs takes a whole number"),
    ({"workers": 100_000}, "workers must be 256 at most, not 100000"),
]


@pytest.mark.parametrize(("changes", "words"), STRANGE)
@pytest.mark.parametrize("resumed", [False, True])
def test_code_and_files_that_a_file_names_are_left_alone(
    changes, words, resumed, strange, jpgs, tmp_path, capsys
):
    text = yaml.safe_dump(settings(jpgs, **changes)).replace("STRANGE", str(strange))
    out = tmp_path / "run"
    out.mkdir()
    path = out / "run.yaml" if resumed else tmp_path / "config.yaml"
    path.write_text(text)
    OPENED.clear()
    first = ["--resume"] if resumed else ["--config", path]
    code, line = answer(capsys, "fit", *first, "--out", out, "--cache", tmp_path / "cache", "--quiet")
    assert code == 2
    assert re.search(words, line), line
    assert not (strange / "executed").exists()
    assert MODULE not in sys.modules
    assert not [place for place in OPENED if str(strange) in place]


def test_options_that_ask_for_more_memory_than_there_is(jpgs, tmp_path, capsys):
    path, out = tmp_path / "config.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(settings(jpgs, method={"name": "moco", "queue": 2**46})))
    code, line = answer(capsys, "fit", "--config", path, *FIT, "--out", out)
    assert code == 1
    assert "out of memory before the first step" in line
    assert not out.exists()


def test_a_method_of_ones_own_is_named_on_the_command_line(strange, jpgs, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(jpgs, method={"name": f"{MODULE}:Mine"})))
    out = tmp_path / "run"
    assert main(["fit", f"{MODULE}:Mine", "--config", str(path), *FIT, "--out", str(out)]) == 0
    assert (strange / "executed").exists()
    line = answer(capsys, "fit", "--resume", "--out", out)[1]  # the run's own file is a file, too
    assert f"tacit fit {MODULE}:Mine" in line
    assert main(["fit", f"{MODULE}:Mine", "--resume", "--out", str(out), "--quiet"]) == 0


@pytest.mark.parametrize(
    "kind", ["pipe", "device", "link", "folder", "bomb", "deep", "large", "bytes", "list"]
)
def test_files_that_are_no_settings(kind, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    words = "cannot read --config"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = "/dev/zero"
        case "link":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            words = "is no YAML of settings"
            path.write_bytes(
                {
                    "bomb": b"a: &a [1, 1]\nb: &b [*a, *a]\nmethod: {name: *b}\n",
                    "deep": b"method: " + b"[" * 10_000,
                    "large": b"#" * 5 * 2**20,
                    "bytes": b"\xff\xfe\x00",
                    "list": b"- 1",
                }[kind]
            )
    assert words in answer(capsys, "fit", "--config", path)[1]
    assert words in answer(capsys, "fit", "simclr", "--config", path)[1]


def test_sound_settings_are_taken_and_their_places_are_said(jpgs, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    text = yaml.safe_dump(settings(jpgs, method={"augment": {"blur": 0.25}}, seed=3, labels="none"))
    path.write_text(text + "lr: 1e-2\nrecord: {data: {classes: {class_path: 5}}}\n")
    out, words = tmp_path / "run", [word for word in FIT if word != "--quiet"]
    assert main(["fit", "--config", str(path), *words, "--out", str(out)]) == 0
    assert f"from {path}: --data {jpgs}\n" in capsys.readouterr().err
    written = yaml.safe_load((out / "run.yaml").read_text())
    assert (written["lr"], written["seed"], written["method"]["augment"]["blur"]) == (0.01, 3, 0.25)
    assert len(written["method"]["augment"]["scale"]) == 2  # the options that were not given are there, too
    found = read_configuration(str(path))
    assert (found.method, found.words["seed"]) == ("simclr", 3)
    assert found.places({"data": "elsewhere"}) == ""
    with pytest.raises(UsageError, match="names code"):
        read_configuration(str(_with(path, "a:B")))


def _with(path, name):
    path.write_text(yaml.safe_dump({"method": {"name": name}}))
    return path
