"""Whole volumes from patches, and segmenters on the disk."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tacit.data.volume.canvas import VolumeCanvas
from tacit.data.volume.form import VolumeForm
from tacit.encoders.card import EncoderCard, with_card
from tacit.errors import TacitError, UsageError
from tacit.tasks.masks.segmenter import MaskCard, Segmenter
from tacit.tasks.registry import load_predictor

pytest.importorskip("monai")


class Whole:
    """A volume in memory, as a canvas reads it."""

    name = "whole"

    def __init__(self, voxels):
        self.voxels = voxels
        self.shape = tuple(voxels.shape[1:])
        self.stored = SimpleNamespace(origin=None)

    def read(self, start, size):
        assert tuple(start) == (0, 0, 0)
        assert tuple(size) == self.shape
        return self.voxels


@pytest.mark.parametrize("shape", [(9, 8, 13), (8, 8, 8), (5, 20, 3), (17, 16, 8)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_what_every_window_says_alike_is_said_of_the_whole(shape, overlap):
    draw = torch.Generator().manual_seed(0)
    volume = Whole(torch.rand(1, *shape, generator=draw))
    seen = []

    def predict(x):
        seen.append(len(x))
        assert x.shape[1:] == (1, 8, 8, 8)
        return torch.cat([torch.full_like(x, 0.25), x, 0.75 - x], 1)

    canvas = VolumeCanvas(volume, (8, 8, 8))
    found = canvas.predict(predict, "cpu", overlap)
    assert found.shape == (3, *shape)
    torch.testing.assert_close(found[0], torch.full(shape, 0.25))
    torch.testing.assert_close(found[1], volume.voxels[0])  # the last voxel of each axis, too
    assert max(seen) <= 4
    assert sum(seen) == canvas.windows(overlap)


def test_overlapping_windows_are_averaged():
    volume = Whole(torch.zeros(1, 8, 8, 12))
    calls = []

    def predict(x):
        first = sum(calls)
        calls.append(len(x))
        return (torch.arange(first, first + len(x)).view(-1, 1, 1, 1, 1) + torch.zeros_like(x)).float()

    found = VolumeCanvas(volume, (8, 8, 8)).predict(predict, "cpu", 0.5)
    assert found[0, 0, 0].tolist() == [0.0] * 4 + [0.5] * 4 + [1.0] * 4


def test_a_folder_without_a_segmenter_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="no run at"):
        load_predictor(tmp_path / "absent")


def test_a_damaged_segmenter_is_one_line(tmp_path, monkeypatch):
    encoder = with_card(nn.Identity(), EncoderCard("", VolumeForm.make(1, patch=(8, 8, 8))))
    monkeypatch.setattr("tacit.tasks.registry.load_encoder", lambda folder: encoder)
    (tmp_path / "segmenter.json").write_text('{"classes": ["background", "a"]}')
    (tmp_path / "segmenter.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(TacitError, match="is damaged"):
        load_predictor(tmp_path)
    (tmp_path / "segmenter.json").unlink()
    with pytest.raises(UsageError, match="learned no labels"):
        load_predictor(tmp_path)


def test_probabilities_add_up_to_one():
    class Net(nn.Module):
        """Gives its input twice."""

        def forward_pyramid(self, x):
            return [torch.cat([x, 1 - x], 1)]

    encoder = with_card(Net(), EncoderCard("", VolumeForm.make(1, patch=(8, 8, 8))))
    head = nn.Conv3d(2, 3, 1)
    segmenter = Segmenter(encoder, head, MaskCard(classes=("background", "a", "b"))).to("cpu")
    found = segmenter.probabilities(VolumeCanvas(Whole(torch.rand(1, 9, 8, 8)), (8, 8, 8))).numpy()
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
