"""Encoders that strangers wrote: nothing executes, and nothing outside of the folder is opened."""

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tacit.encoders.allowance import Allowance
from tacit.encoders.saved import save_encoder
from tacit.encoders.spec import MONAI_WORDS, TIMM_WORDS, Spec
from tacit.encoders.weights import fill
from tacit.encoders.zoo import build_encoder, load_encoder
from tacit.errors import TacitError, UsageError
from tacit.tasks.predictor import read_predictor

NAN, INFINITE = float("nan"), float("inf")
OPENED: list[str] = []


def _hook(event, arguments):
    if event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(_hook)


class Marker:
    """Unpickled, it makes a folder."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.fixture
def pickled(tmp_path):
    """A checkpoint whose unpickling makes the folder `executed` beside it, in three formats."""
    folder = tmp_path / "strange"
    folder.mkdir()
    for name, old in (("new.pth", False), ("old.pth", True)):
        state = {"state_dict": {"conv1.weight": Marker(folder / "executed")}}
        torch.save(state, folder / name, _use_new_zipfile_serialization=not old)
    (folder / "a.safetensors").write_bytes((folder / "new.pth").read_bytes())
    return folder


@pytest.fixture
def folder(tmp_path):
    """The folder of a run, and a function that changes its card."""
    run = tmp_path / "run"
    save_encoder(build_encoder("tacit/convnet?width=8", size=16), run)
    return run


def change(folder, **changes):
    card = json.loads((folder / "encoder.json").read_text())
    form = card["form"] | changes.pop("form", {})
    card |= {**changes, "form": form}
    (folder / "encoder.json").write_text(json.dumps({k: v for k, v in card.items() if v != "absent"}))
    return folder


def refused(folder, words, load=load_encoder):
    with pytest.raises(TacitError, match=words) as caught:
        load(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert str(folder) in line
    assert len(line) < 600 + len(str(folder))


FILES = ("new.pth", "old.pth", "a.safetensors")
WORDS = (
    *(
        "checkpoint_path",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "cache_dir",
        "pretrained",
        "features_only",
    ),
    *("pretrained_custom_load", "norm_layer", "block", "device", "num_classes", "in_chans", "exportable"),
    *("out_indices", "feature_cls", "pretrained_strict", "kwargs_filter", "hybrid_backbone", "embed_layer"),
)


@pytest.mark.parametrize("word", WORDS)
def test_words_of_timm_that_are_no_architecture_are_refused_everywhere(word, pickled, folder):
    for prefix in ("", "random:"):
        with pytest.raises(UsageError, match=f"unknown option of timm/resnet10t '{word}'"):
            build_encoder(f"{prefix}timm/resnet10t?{word}={pickled / 'new.pth'}")
        with pytest.raises(UsageError, match="unknown option"):
            build_encoder(f"{prefix}tacit/slices?image=timm/resnet10t?{word}=x", patch=(32, 32, 4))
    refused(change(folder, spec=f"timm/resnet10t?{word}={pickled / 'new.pth'}"), "unknown option")
    assert not (pickled / "executed").exists()


@pytest.mark.parametrize("name", FILES)
def test_pickled_weights_are_not_unpickled(name, pickled, folder):
    path = pickled / name
    with pytest.raises(TacitError, match="cannot be read") as caught:
        build_encoder(f"timm/resnet10t?weights={path}")
    assert "\n" not in str(caught.value)
    OPENED.clear()
    # a card is built without the weights that its spec names: those of the folder are read
    save_encoder(build_encoder("timm/resnet10t", size=64), folder)
    assert load_encoder(change(folder, spec=f"timm/resnet10t?weights={path}"))
    assert build_encoder(f"random:timm/resnet10t?weights={path}")
    assert build_encoder(f"random:run:{folder}")
    assert not [place for place in OPENED if str(pickled) in place]
    assert not (pickled / "executed").exists()


def test_sound_weights_of_torch_are_read_and_kept_once(tmp_path):
    model = timm.create_model("resnet10t")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    encoder = build_encoder(f"timm/resnet10t?weights={tmp_path / 'a.pth'}", size=64, small_input=False)
    assert torch.equal(encoder.layer4[0].conv1.weight, model.layer4[0].conv1.weight)
    assert "state_dict" not in encoder.pretrained_cfg


@pytest.mark.parametrize(
    "spec",
    [
        *("run:{}", "random:run:{}", "random:timm/resnet10t", "run:.", "timm/../{}", "timm/{}"),
        *("tacit/slices?image=run:{}", "tacit/slices?image=random:run:{}", "timm/local-dir:{}"),
        *(
            "timm/hf-hub:a/b",
            "timm/resnet10t:{}",
            "",
            None,
            5,
            ["timm/resnet10t"],
            "x" * 2000,
            "timm/resnet10t?",
        ),
        *("timm/resnet10t?drop_rate=../{}", "monai/UNet?norm={}", "os.system", "tacit.encoders.zoo:OWN"),
    ],
)
def test_a_card_names_an_architecture_and_no_place(spec, folder, tmp_path):
    other = tmp_path / "other"
    save_encoder(build_encoder("tacit/convnet?width=8", size=64), other)
    spec = spec.format(other) if isinstance(spec, str) else spec
    change(folder, spec=spec)
    OPENED.clear()
    refused(folder, "encoder")
    assert not [place for place in OPENED if str(other) in place]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": "absent"}, "its spec is missing"),
        ({"num_features": 65}, "its num_features is 65, and its spec gives 32"),
        ({"num_features": -1}, "its num_features is -1, and must be a whole number"),
        ({"num_features": True}, "its num_features is True"),
        ({"num_features": 1e9}, "its num_features is 1000000000.0"),
        ({"small_input": 1}, "its small_input is 1, and must be true or false"),
        ({"small_input": True}, "cannot be built: small_input"),
        ({"learned": "yes"}, "its learned is 'yes'"),
        ({"form": {"channels": 1e7}}, "its channels is 10000000.0"),
        ({"form": {"channels": 10**7}}, "its channels is 10000000, and must be a whole number"),
        (
            {"form": {"channels": 50_000, "mean": [0.5], "std": [0.5]}},
            r"and the card wants \[8, 50000, 3, 3\]",
        ),
        ({"form": {"channels": 4, "mean": [0.5], "std": [0.5]}}, r"its layers.0.weight is .*wants \[8, 4"),
        ({"form": {"channels": 4}}, r"its mean is \(.*\), and must be a number for each of 4 channel"),
        ({"form": {"channels": "3"}}, "its channels is '3'"),
        ({"form": {"channels": "absent"}}, "its channels is 'absent'"),
        ({"form": {"mean": [NAN, 0, 0]}}, "its mean is nan, and must be a list of finite numbers"),
        ({"form": {"mean": 0.5}}, "its mean is 0.5, and must be a list"),
        ({"form": {"std": [0.5, 0, 0.5]}}, "its std is 0, and must be numbers above 0"),
        ({"form": {"std": [0.5, -1, 0.5]}}, "its std is -1"),
        ({"form": {"std": [0.5, INFINITE, 0.5]}}, "its std is inf"),
        ({"form": {"std": [0.5, "a", 0.5]}}, "its std is 'a'"),
        ({"form": {"size": 0}}, "its size is 0"),
        ({"form": {"size": 10**9}}, "its size is 1000000000"),
        ({"form": {"size": 16_384}}, "its size makes samples of 805,306,368 numbers"),
        ({"form": {"size": NAN}}, "its size is nan"),
        ({"form": {"stored": -1}}, "its stored is -1"),
        ({"form": {"white": 2.5}}, "its white is 2.5"),
        ({"form": {"modality": "smell"}}, "no kind of data 'smell'"),
        ({"form": {"modality": 5}}, "its modality is 5"),
        ({"form": {"modality": "volume"}}, "its modality is volume, and its spec gives image"),
        ({"spec": "timm/vit_giant_patch14_224", "num_features": 0}, "larger than its weights"),
        ({"spec": "tacit/convnet?width=200000", "num_features": 0}, "larger than its weights"),
        ({"spec": "tacit/convnet?width=1&depth=1000", "num_features": 0}, "larger than its weights"),
        ({"spec": "tacit/convnet?depth=100000", "num_features": 0}, "depth may be 1,000 at most"),
        ({"spec": "tacit/convnet?width=1e400", "num_features": 0}, "width may be 1,048,576 at most, not inf"),
        ({"spec": "tacit/convnet?width=nan", "num_features": 0}, "width may be 1,048,576 at most, not nan"),
        ({"spec": "tacit/convnet?width=8.5", "num_features": 0}, "cannot be built"),
        ({"spec": "tacit/unet3d?depth=1000", "num_features": 0}, "cannot be built"),
    ],
)
def test_cards_of_nonsense(changes, words, folder):
    refused(change(folder, **changes), words)


VOLUME = [
    ({"patch": [16, 16]}, r"its patch is \(16, 16\), and must be three numbers"),
    ({"patch": [16, 16, 0]}, "its patch is 0"),
    ({"patch": [16, 16, 16.0]}, "its patch is 16.0"),
    ({"patch": [4096, 4096, 4096]}, "its patch makes samples of 68,719,476,736 numbers"),
    ({"patch": "16,16,16"}, "its patch is '16,16,16'"),
    ({"spacing": [1, 1, 0]}, "its spacing is 0"),
    ({"spacing": [1, 1, NAN]}, "its spacing is nan"),
    ({"window": "5,1"}, "first number must be below its second"),
    ({"window": "x"}, "the window is minmax, percentile or LOW,HIGH"),
    ({"window": 5}, "its window is 5, and must be a window"),
]


@pytest.mark.parametrize(("form", "words"), VOLUME)
def test_cards_of_volumes_of_nonsense(form, words, tmp_path):
    save_encoder(build_encoder("tacit/vnet?width=2", channels=1, patch=(16, 16, 16)), tmp_path)
    load_encoder(tmp_path)
    refused(change(tmp_path, form=form), words)


def test_a_network_of_many_small_layers_is_stopped():
    with pytest.raises(ValueError, match="larger than its weights"), Allowance(1000, 10):
        nn.Sequential(*(nn.Linear(1, 1) for _ in range(20_000)))
    with pytest.raises(ValueError, match="larger than its weights"), Allowance(1000, 10):
        nn.Linear(100_000, 100_000)  # 40 GB, of which none was allocated
    with pytest.raises(ValueError, match="larger than its weights"), Allowance(1000, 10):
        torch.ones(20_000, 1) @ torch.ones(1, 20_000)
    with Allowance(1000, 10):
        same = torch.cat([torch.arange(4), torch.ones(10**6, dtype=torch.uint8)[:2]])
    assert same.tolist() == [0, 1, 2, 3, 1, 1]


def test_building_within_an_allowance_gives_the_same_weights():
    spec = "tacit/slices?image=timm/resnet10t&dim=16&depth=1"
    free = build_encoder(spec, channels=1, patch=(32, 32, 4))
    with Allowance(10**8, 100):
        bound = build_encoder(
            "tacit/slices?image=timm/resnet10t&dim=16&depth=1", channels=1, patch=(32, 32, 4)
        )
    assert all(map(torch.equal, free.state_dict().values(), bound.state_dict().values()))


def weights(folder, **changes):
    path = folder / "encoder.safetensors"
    state = load_file(path) | changes
    save_file({name: value for name, value in state.items() if value is not None}, path)
    return folder


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("layers.0.weight", lambda w: w * NAN, "its layers.0.weight has values that are not finite"),
        (
            "layers.0.weight",
            lambda w: w.double() + 1e300,
            "its layers.0.weight has values that are not finite",
        ),
        ("layers.0.weight", lambda w: w[:, :2].contiguous(), "its layers.0.weight is .*, and the card wants"),
        ("layers.0.weight", lambda w: w.long(), "its layers.0.weight has the type I64, and must have real"),
        ("layers.0.weight", lambda w: w.bool(), "its layers.0.weight has the type BOOL"),
        ("layers.0.weight", lambda w: None, "it lacks 'layers.0.weight'"),
        ("more", lambda w: torch.ones(1), "it has 'more', which the card's encoder has not"),
        ("layers.1.running_var", lambda w: w * 0 - 1, "its layers.1.running_var has negative values"),
        (
            "layers.1.running_mean",
            lambda w: w + INFINITE,
            "its layers.1.running_mean has values that are not finite",
        ),
        ("layers.1.num_batches_tracked", lambda w: w - 5, "its layers.1.num_batches_tracked is negative"),
        ("layers.1.num_batches_tracked", lambda w: w.float(), "must have whole numbers"),
    ],
)
def test_weights_of_nonsense(name, value, words, folder):
    before = load_file(folder / "encoder.safetensors").get(name, torch.zeros(1))
    refused(weights(folder, **{name: value(before)}), words)


def test_weights_of_half_precision_are_weights(folder):
    state = load_file(folder / "encoder.safetensors")
    half = {name: value.half() for name, value in state.items() if value.is_floating_point()}
    encoder = load_encoder(weights(folder, **half))
    assert torch.equal(encoder.layers[0].weight, half["layers.0.weight"].float())


def test_tables_of_an_architecture_are_not_taken_from_the_file():
    module = nn.BatchNorm1d(2)
    module.register_buffer("index", torch.tensor([0, 1]))
    sound = {name: value.clone() for name, value in module.state_dict().items()}
    fill(module, sound | {"weight": torch.tensor([5.0, 6.0]), "num_batches_tracked": torch.tensor(7)})
    assert (module.weight.tolist(), module.num_batches_tracked.item()) == ([5, 6], 7)
    with pytest.raises(ValueError, match="its index has other values than the card's encoder"):
        fill(module, sound | {"index": torch.tensor([0, 10**6])})


def test_a_header_that_claims_what_the_file_does_not_hold(folder):
    path = folder / "encoder.safetensors"
    header = json.dumps(
        {"layers.0.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    )
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    refused(folder, "damaged or of another model")
    with path.open("r+b") as file:  # and one that does hold it, on no place of the disk
        file.truncate(8 + len(header) + 4 * 10**12)
    refused(folder, "damaged or of another model")


@pytest.mark.parametrize(
    "name", ["encoder.json", "encoder.safetensors", "predictor.json", "predictor.safetensors"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_files_of_a_run_that_are_no_files(name, kind, folder):
    load = read_predictor if "predictor" in name else load_encoder
    (folder / "predictor.json").write_text('{"target": "class", "classes": ["a"]}')
    save_file({"a": torch.ones(1)}, folder / "predictor.safetensors")
    path = Path(folder, name)
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()
    if name == "predictor.json":
        assert load(folder) is None
    else:
        refused(folder, "must be a file|is missing", load)


def test_words_that_name_files_are_on_no_list():
    names = {"checkpoint_path", "pretrained", "file", "path", "backbone", "weights", "pretrained_cfg"}
    assert not names & (TIMM_WORDS | MONAI_WORDS)


@pytest.mark.parametrize("text", ["a/b", "../x", "a.b", "/x", "x:y", "a b", "a;b", "{}", "$x", "~", "a\\b"])
def test_texts_that_could_be_places_are_no_options(text):
    with pytest.raises(UsageError, match="takes a number, a word or true"):
        Spec("timm", "resnet10t", {"global_pool": text}).check({"global_pool"})
    Spec("timm", "resnet10t", {"global_pool": "avg-max_2,3"}).check({"global_pool"})
