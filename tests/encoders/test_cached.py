"""Which pretrained encoders are found in a made-up cache of the hub."""

import pytest

from tacit.encoders import cached
from tacit.encoders.cached import cached_encoders
from tacit.encoders.zoo import build_encoder


def keep(cache, name, *files, snapshot="x"):
    folder = cache / name / "snapshots" / snapshot
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_with_weights_is_listed(weights, tmp_path):
    keep(tmp_path, "models--timm--resnet18.a1_in1k", "config.json", weights)
    assert cached_encoders(tmp_path) == ["timm/resnet18.a1_in1k"]


def test_what_is_not_whole_or_not_known_is_not_listed(tmp_path):
    keep(tmp_path, "models--timm--resnet26.bt_in1k", "config.json")  # no weights
    keep(tmp_path, "models--timm--resnet34.a1_in1k", "model.safetensors.incomplete")
    keep(tmp_path, "models--timm--resnet_of_nobody.a1_in1k", "model.safetensors")
    keep(tmp_path, "models--timm--resnet50", "model.safetensors")  # no tag
    keep(tmp_path, "models--somebody--resnet50.a1_in1k", "model.safetensors")
    keep(tmp_path, "datasets--timm--resnet50.a1_in1k", "model.safetensors")
    (tmp_path / "models--timm--resnet101.a1_in1k").mkdir()  # no snapshot
    (tmp_path / "models--timm--resnet152.a1_in1k").write_text("no folder")
    folder = tmp_path / "models--timm--vgg11.tv_in1k" / "snapshots" / "x" / "model.safetensors"
    folder.mkdir(parents=True)  # no file
    (tmp_path / "models--timm--vgg13.tv_in1k").mkdir()
    (tmp_path / "models--timm--vgg13.tv_in1k" / "model.safetensors").write_bytes(b"")  # in no snapshot
    assert cached_encoders(tmp_path) == []


def test_several_are_in_order_and_one_snapshot_of_several_suffices(tmp_path):
    names = ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "convnext_tiny.fb_in1k", "resnet50.tv_in1k"]
    names += ["resnet34.a1_in1k", "resnet50.a1_in1k", "vgg11.tv_in1k", "densenet121.ra_in1k"]
    for name in names:
        keep(tmp_path, f"models--timm--{name}", "pytorch_model.bin")
    keep(tmp_path, "models--timm--resnet18.a1_in1k", "config.json", snapshot="old")
    keep(tmp_path, "models--timm--resnet18.a1_in1k", "model.safetensors", snapshot="new")
    assert cached_encoders(tmp_path) == sorted(f"timm/{name}" for name in [*names, "resnet18.a1_in1k"])


def test_links_into_the_store_of_blobs_count_where_they_lead_somewhere(tmp_path):
    blob = tmp_path / "models--timm--resnet18.a1_in1k" / "blobs" / "abc"
    keep(tmp_path, "models--timm--resnet18.a1_in1k")
    link = tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / "x" / "model.safetensors"
    link.symlink_to("../../blobs/abc")
    assert cached_encoders(tmp_path) == []
    blob.parent.mkdir()
    blob.write_bytes(b"")
    assert cached_encoders(tmp_path) == ["timm/resnet18.a1_in1k"]


def test_no_cache_holds_nothing(tmp_path):
    assert cached_encoders(tmp_path) == []
    assert cached_encoders(tmp_path / "missing") == []
    (tmp_path / "file").write_text("")
    assert cached_encoders(tmp_path / "file") == []


def test_the_usual_cache_is_the_hubs_own(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    keep(tmp_path, "models--timm--resnet18.a1_in1k", "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached.cached_encoders() == ["timm/resnet18.a1_in1k"]


def test_what_is_listed_is_a_spec_string(tmp_path, monkeypatch):
    """The name with its tag builds, here without weights."""
    import timm

    keep(tmp_path, "models--timm--resnet18.a1_in1k", "model.safetensors")
    own, asked = timm.create_model, []

    def create(name, *args, **kwargs):
        asked.append(name)
        return own(name, *args, **{**kwargs, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", create)
    (spec,) = cached_encoders(tmp_path)
    assert build_encoder(spec, channels=3, size=32).num_features == 512
    assert asked == ["resnet18.a1_in1k"]
