"""The lines in encoder.json load the weights with timm alone, at every size."""

import json
import os

import pytest
import torch
from torch import nn

from tacit.encoders.card import attach_card, card_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.zoo import build_encoder, fill_module, how_to_load
from tacit.errors import TacitError, UsageError
from tacit.training.run import Run


def saved(encoder, folder):
    save_encoder(encoder, folder, how_to_load(card_of(encoder)))
    return json.loads((folder / "encoder.json").read_text())["load"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("timm/resnet18", {"size": 32, "channels": 1}),  # the stem for small images
        ("timm/resnet18", {"size": 128}),
        ("timm/seresnet50", {"size": 48}),
        ("timm/vit_tiny_patch16_224", {"size": 64}),
        ("timm/vit_tiny_patch16_224?img_size=32&patch_size=4", {}),
        ("timm/convnext_atto?drop_path_rate=0.1", {"size": 64}),
        ("timm/resnet18.a1_in1k", {"size": 32}),
    ],
)
def test_timm_alone_loads_it(tmp_path, monkeypatch, spec, words):
    twin = "random:" if "." in spec.partition("?")[0] else ""
    encoder = build_encoder(twin + spec, **words).eval()
    card = card_of(encoder)
    card.spec = spec
    lines = saved(encoder, tmp_path)
    assert "tacit" not in " ".join(lines)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec("\n".join(lines), found)
    size, channels = card.form.sides["size"], card.channels
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        torch.testing.assert_close(found["model"].eval()(x), encoder(x), rtol=0, atol=0)


def test_ours_are_loaded_by_us(tmp_path, monkeypatch):
    encoder = build_encoder("tacit/convnet", size=32).eval()
    lines = saved(encoder, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec("\n".join(lines), found)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(found["model"](x), encoder(x))


class Own(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.layers(x)


def test_a_module_of_ones_own_gets_the_weights_of_a_run(tmp_path):
    learned = attach_card(Own(), channels=1, size=16, num_features=8)
    assert saved(learned, tmp_path)[1].startswith("model = ...")
    with pytest.raises(UsageError, match=r"pass it to tacit.Run\(folder\).encoder\(module\)"):
        Run(tmp_path).encoder()
    fresh = Run(tmp_path).encoder(Own())
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(fresh(x), learned(x))
    assert card_of(fresh) == card_of(learned)
    assert not fresh.training
    with pytest.raises(TacitError, match=r"encoder.safetensors does not fit the Own: its layers.0.weight is"):
        fill_module(Own(9), tmp_path)
    os.remove(tmp_path / "encoder.safetensors")
    with pytest.raises(TacitError, match="has lost its encoder"):
        fill_module(Own(), tmp_path)
