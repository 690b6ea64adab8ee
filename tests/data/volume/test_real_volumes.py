"""Hippocampus volumes of the Decathlon: what is said of them, and of their masks under other names."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scans import save

from tacit.data.open import open_source
from tacit.errors import BadFile

DATA = Path(os.environ.get("TACIT_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
FILE = DATA / "msd_hippocampus" / "msd_hippocampus.npz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"no hippocampus volumes in {DATA}")


@pytest.fixture(scope="module")
def cases():
    with np.load(FILE) as archive:
        end = archive["offset"][:9]
        shapes = archive["shape"][:8]
        image, label = archive["image"][: end[-1]], archive["label"][: end[-1]]
    parts = [slice(*pair) for pair in pairwise(end)]
    return [(image[p].reshape(s), label[p].reshape(s)) for p, s in zip(parts, shapes, strict=True)]


def test_nothing_is_said_of_ordinary_volumes(cases, tmp_path):
    for i, (image, label) in enumerate(cases):
        save(tmp_path / f"{i}.nii.gz", image)
        if i < 5:
            save(tmp_path / f"{i}_SEG.nii.gz", label)
    source = open_source(tmp_path)
    assert source.notes == ()
    assert source.understood == "5 of 8 volumes have a mask of 0 background, 1, 2"


@pytest.mark.parametrize("name", ["{}_roi.nii", "{}_hippocampus.nii", "mask-{}.nii", "drawn/{}.nii"])
def test_masks_under_unknown_names_are_not_learned_from(cases, tmp_path, name):
    for i, (image, label) in enumerate(cases):
        save(tmp_path / f"{i}.nii", image)
        save(tmp_path / name.format(i), label)
    with pytest.raises(BadFile, match="it holds 3 different whole numbers, as a mask does"):
        open_source(tmp_path)
    source = open_source(tmp_path, on_bad_file="skip")
    assert list(source.names) == [f"{i}.nii" for i in range(8)]
