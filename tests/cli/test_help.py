"""What `tacit fit METHOD --help` shows: headings, the method's own words, kinds in a person's words."""

import inspect
import re
from dataclasses import fields

import pytest

from tacit.cli.main import main
from tacit.training.fit import fit
from tacit.training.options import CONCERNS, Options


def shown(slug, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", slug, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("slug", "own", "foreign"),
    [
        (
            "dcl",
            {"size", "views", "preset"},
            {"labelled", "held-out", "patch", "mu", "masks", "values", "images"},
        ),
        ("fixmatch", {"labels-per-class", "held-out", "size"}, {"labelled", "patch", "masks", "values"}),
        (
            "tracoco",
            {"labelled", "patch", "masks", "window"},
            {"labels-per-class", "size", "views", "preset"},
        ),
        ("cps", {"labelled", "patch", "size", "masks"}, {"labels-per-class", "views", "values"}),
        ("supervised-regression", {"labelled", "values", "column", "views"}, {"masks", "patch"}),
        ("joint-image-volume", {"images", "patch"}, {"size", "labelled", "values"}),
    ],
)
def test_a_method_shows_its_own_words_only(slug, own, foreign, capsys):
    words = set(re.findall(r"^  --([a-z-]+)", shown(slug, capsys), re.M))
    assert own <= words
    assert not foreign & words


@pytest.mark.parametrize("slug", ["dcl", "fixmatch", "tracoco", "supervised-regression"])
def test_help_is_for_people(slug, capsys):
    text = shown(slug, capsys)
    assert "null" not in text
    assert "%%" not in text
    assert "| None" not in text
    headings = re.findall(r"^([a-z][\w' ]+):$", text, re.M)
    assert headings[:3] == ["options", "most used", "data and labels"]
    assert headings.index("recipe") < headings.index("machine") < headings.index("run folder")
    most = text[text.index("most used:") : text.index("data and labels:")]
    assert len(re.findall(r"^  --", most, re.M)) <= 12  # the ten, the data and --config
    assert "--epochs N" in most


def test_hidden_words_are_answered_in_one_line(jpgs, tmp_path, capsys):
    words = ["--data", str(jpgs), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["fit", "dcl", *words, "--labelled", "3"]) == 2
    assert "dcl learns no labels, so --labelled means nothing to it" in capsys.readouterr().err


def test_the_signature_and_the_concerns_have_the_same_words():
    signature = [name for name in inspect.signature(fit).parameters if name not in ("method", "options")]
    typed = [f.name for kind in CONCERNS.values() for f in fields(kind)]
    assert len(typed) == len(set(typed))
    assert set(signature) == set(typed)


def test_defaults_of_the_signature_and_of_the_concerns_agree():
    options = Options.of({"method": "dcl", "data": "photos"})
    for name, parameter in inspect.signature(fit).parameters.items():
        if name not in ("method", "data", "options"):
            assert options.words()[name] == parameter.default, name


def test_words_are_routed_to_their_concern_and_back():
    options = Options.of({"method": "dcl", "data": "photos", "epochs": 5, "size": 64, "held_out": 0.5})
    assert (options.changes.epochs, options.seeing.size, options.labels.held_out) == (5, 64, 0.5)
    changed = options.changed(epochs=7, device="cpu")
    assert (changed.changes.epochs, changed.machine.device, options.changes.epochs) == (7, "cpu", 5)
    assert changed.words()["size"] == 64
    with pytest.raises(AssertionError, match="no such words"):
        options.changed(epoch=7)
