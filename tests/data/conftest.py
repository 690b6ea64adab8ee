import os
from pathlib import Path

import pytest
from pictures import smooth
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of the test's own, so that no store is found that another test has built."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TACIT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).parents[2] / "../shared/data"
    folder = Path(os.environ.get("TACIT_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real data here; set TACIT_TEST_DATA")
    return folder


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for i in range(40):
        Image.fromarray(smooth(10 + i, 20, i)).save(place / f"{i:02}.png")
    return place


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded again")

    def forbid():
        monkeypatch.setattr("tacit.data.image.listing.decode", refuse)
        monkeypatch.setattr("tacit.data.image.listing.read_header", refuse)

    return forbid
