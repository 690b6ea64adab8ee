"""Kinds of data of other packages: asked first, named when they fail, and never in the place of ours."""

import os
import subprocess
import sys

import pytest

from balls import ball_folder
from tacit.data import wings
from tacit.data.form import form_class
from tacit.data.image.form import ImageForm
from tacit.data.open import kind_of, open_source
from tacit.errors import TacitError, UsageError


class Entry:
    """An entry point."""

    value = "mine"

    def __init__(self, name, found):
        self.name, self.found = name, found

    def load(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def installed(monkeypatch):
    def install(*entries):
        wings.all_wings.cache_clear()
        monkeypatch.setattr(wings, "entry_points", lambda group: entries)
        monkeypatch.setattr("tacit.data.form.entry_points", lambda group: entries)

    yield install
    wings.all_wings.cache_clear()


def test_a_broken_package_is_named_and_the_others_work(installed, jpgs, capsys):
    installed(Entry("curve", ImportError("no module named 'this'")))
    assert kind_of(jpgs) == "image"
    assert kind_of(jpgs) == "image"
    note = capsys.readouterr().err
    assert note.count("\n") == 1
    assert "the kind of data 'curve' (mine) cannot be loaded: no module named 'this'" in note
    with pytest.raises(TacitError, match=r"'curve' \(mine\) cannot be loaded"):
        form_class("curve")


def test_ours_cannot_be_replaced(installed):
    installed(Entry("image", object()))
    assert wings.all_wings()["image"] is wings.own_wings()["image"]
    assert form_class("image") is ImageForm


def test_a_packaged_set_goes_before_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ball_folder(tmp_path / "digits", count=1, masks=0)
    assert kind_of("digits") == "image"
    assert open_source("digits", progress=False).spec.shape == (1, 8, 8)
    assert kind_of("./digits") == "volume"


def test_slices_are_images(tmp_path):
    assert kind_of(f"slices:{tmp_path}") == "image"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_folder_that_may_not_be_looked_at_is_one_line(tmp_path):
    inner = tmp_path / "closed" / "data"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    code = (
        "import os, sys; from tacit.data.open import kind_of; from tacit.errors import UsageError\n"
        "kind_of('.')\n"  # imports, which the other user may not
        "os.setuid(65534)\n"
        "try: kind_of(sys.argv[1])\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(inner)], capture_output=True, text=True, check=False
    )
    assert "permission denied" in done.stdout, done.stderr


def test_no_such_kind(installed):
    installed()
    with pytest.raises(UsageError, match="there is no kind of data 'curve'"):
        form_class("curve")
