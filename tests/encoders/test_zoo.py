import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tacit.encoders.card import attach_card, card_of
from tacit.encoders.saved import save_encoder
from tacit.encoders.stem import make_small_input
from tacit.encoders.zoo import Spec, build_encoder, fixed_size, is_pretrained, load_encoder
from tacit.errors import TacitError, UsageError


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A ResNet-18 in timm's own format, standing for a download."""
    torch.manual_seed(5)
    model = timm.create_model("resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize(
    ("spec", "features"), [("timm/resnet18", 512), ("tacit/convnet", 128), ("timm/resnet10t", 512)]
)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_contract(spec, features, channels):
    encoder = build_encoder(spec, channels=channels, size=32).eval()
    x = torch.rand(2, channels, 32, 32)
    assert encoder(x).shape == (2, features)
    assert encoder.forward_features(x).shape[:2] == (2, features)
    assert encoder.num_features == card_of(encoder).num_features == features
    assert torch.allclose(encoder.forward_head(encoder.forward_features(x)), encoder(x))


def test_random_weights_follow_the_seed_alone():
    torch.manual_seed(0)
    first = build_encoder("timm/resnet18", size=32, seed=1)
    torch.manual_seed(99)
    again, other = (build_encoder("timm/resnet18", size=32, seed=seed) for seed in (1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_small_input_is_chosen_by_the_size_and_keeps_the_resolution():
    small, large = (build_encoder("timm/resnet18", size=size) for size in (32, 128))
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    assert small.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (4, 4)
    assert large.conv1.kernel_size == (7, 7)
    assert build_encoder("timm/resnet18", size=32, small_input=False).conv1.kernel_size == (7, 7)


def test_small_stem_keeps_the_centre_of_the_kernel():
    model = timm.create_model("resnet18")
    old = model.conv1.weight.clone()
    assert torch.equal(make_small_input(model).conv1.weight, old[:, :, 2:5, 2:5])


def test_small_input_names_models_that_have_it():
    with pytest.raises(UsageError, match="resnet18"):
        build_encoder("timm/convnext_atto", size=32, small_input=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_inflated_weights_answer_equal_channels_as_before(weights, channels):
    model, path = weights
    encoder = build_encoder(f"timm/resnet18?weights={path}", channels=channels, size=64, small_input=False)
    grey = torch.rand(2, 1, 64, 64)
    expected = model.conv1(grey.expand(-1, 3, -1, -1))
    got = encoder.conv1(grey.expand(-1, channels, -1, -1))
    if channels == 1:  # the sum over channels
        assert torch.allclose(got, expected, atol=1e-5)
    else:  # cyclic repetition times 3 / C: for C = 3k exact, else the repeated channels weigh more
        cyclic = model.conv1.weight[:, [i % 3 for i in range(channels)]] * 3 / channels
        assert torch.allclose(encoder.conv1.weight, cyclic, atol=1e-7)
    if channels == 3:
        assert torch.allclose(got, expected, atol=1e-5)


def test_pretrained_encoders_keep_their_own_normalisation(weights):
    _, path = weights
    spec = f"timm/resnet18?weights={path}"
    card = card_of(build_encoder(spec, channels=4, size=64, mean=(0.1,) * 4, std=(0.2,) * 4))
    assert card.form.mean == (0.485, 0.456, 0.406, 0.485)
    assert card.learned
    assert card_of(build_encoder(spec, channels=1, size=64)).form.mean == (
        pytest.approx((0.485 + 0.456 + 0.406) / 3),
    )
    twin = card_of(build_encoder(f"random:{spec}", channels=1, size=64, mean=(0.1,), std=(0.2,)))
    assert (twin.form.mean, twin.form.std) == ((0.1,), (0.2,))
    assert not twin.learned


def test_the_random_twin_has_the_architecture_and_not_the_weights(weights):
    model, path = weights
    twin = build_encoder(f"random:timm/resnet18?weights={path}", size=64, small_input=False)
    assert twin.conv1.weight.shape == model.conv1.weight.shape
    assert not torch.equal(twin.conv1.weight, model.conv1.weight)


def test_saved_encoders_come_back_exactly(tmp_path):
    encoder = build_encoder("timm/resnet18", channels=1, size=28, mean=(0.1,), std=(0.3,), seed=3).eval()
    save_encoder(encoder, tmp_path)
    x = torch.rand(2, 1, 28, 28)
    for back in (load_encoder(tmp_path), build_encoder(f"run:{tmp_path}")):
        assert torch.equal(back(x), encoder(x))
        assert card_of(back) == card_of(encoder)
        assert card_of(back).learned
        assert not card_of(encoder).learned
    assert {p.name for p in tmp_path.iterdir()} == {"encoder.safetensors", "encoder.json"}
    twin = build_encoder(f"random:run:{tmp_path}", seed=4)
    assert card_of(twin) == card_of(encoder)
    assert not card_of(twin).learned
    assert not same(twin, encoder)


def test_a_saved_encoder_loads_into_plain_timm(tmp_path):
    from safetensors.torch import load_file

    encoder = build_encoder("timm/resnet18", size=224, seed=3).eval()
    save_encoder(encoder, tmp_path)
    plain = timm.create_model("resnet18", num_classes=0).eval()
    plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(plain(x), encoder(x))


def test_damaged_runs_say_what_is_damaged(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load_encoder(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"holds no encoder"):
        load_encoder(tmp_path)
    save_encoder(build_encoder("tacit/convnet", size=16), tmp_path)
    whole = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TacitError, match="damaged"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(TacitError, match="lost"):
        load_encoder(tmp_path)
    deep = "[" * 200_000
    for text in ('{"form": 3}', '{"form": {"modality": "open"}}', '{"modality": ["x"]}', "[]", "3", deep):
        (tmp_path / "encoder.json").write_text(text)
        with pytest.raises(TacitError, match=r"encoder\.json is damaged"):
            load_encoder(tmp_path)
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(TacitError, match="damaged"):
        load_encoder(tmp_path)


def test_cards_of_later_versions_are_read(tmp_path):
    save_encoder(build_encoder("tacit/convnet", size=16), tmp_path)
    card = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**card, "invented_later": 1}))
    assert load_encoder(tmp_path).num_features == 128


def test_own_modules_get_a_card():
    own = nn.Sequential(nn.Flatten(), nn.Linear(48, 7))
    with pytest.raises(UsageError, match="attach_card"):
        card_of(own)
    with pytest.raises(UsageError, match="num_features"):
        attach_card(own, channels=3, size=4)
    assert card_of(attach_card(own, channels=3, size=4, num_features=7)).num_features == 7


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm/resnet81", "did you mean 'timm/resnet"),
        ("tim/resnet18", "did you mean 'timm'"),
        ("resnet18", "did you mean 'timm/resnet18'"),
        ("convnet", "did you mean 'tacit/convnet'"),
        ("tacit/covnet", "did you mean 'tacit/convnet'"),
        ("timm/resnet18?depht=3", "depht"),
        ("timm/resnet18?weights=absent.safetensors", "not a file"),
        ("run:absent", "no such folder"),
        ("nonsense", "names no family"),
    ],
)
def test_wrong_specs_get_one_line(spec, message):
    with pytest.raises(UsageError, match=message) as error:
        build_encoder(spec)
    assert "\n" not in str(error.value)


def test_pretrained_weights_that_cannot_be_had_are_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TacitError, match="pretrained weights could not be loaded") as error:
        build_encoder("timm/resnet18.a1_in1k")
    assert "\n" not in str(error.value)


def test_spec_options_have_types():
    assert Spec.parse("timm/x?a=1&b=0.5&c=true&d=word").options == {"a": 1, "b": 0.5, "c": True, "d": "word"}


def test_vits_say_their_size_and_take_another():
    assert fixed_size("timm/vit_tiny_patch16_224") == 224
    assert fixed_size("timm/vit_tiny_patch16_224?img_size=32&patch_size=4") == 32
    assert fixed_size("timm/resnet18") is None
    encoder = build_encoder("timm/vit_tiny_patch16_224?patch_size=8", size=32)
    assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, 192)


def test_which_specs_bring_weights():
    assert [
        is_pretrained(s)
        for s in (
            "timm/resnet18",
            "timm/resnet18.a1_in1k",
            "run:x",
            "random:run:x",
            "timm/resnet18?weights=f",
        )
    ] == [False, True, True, False, True]


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "convnext_atto", "ghostnet_050"])
def test_the_card_tells_the_length_of_what_comes_out(name):
    encoder = build_encoder(f"timm/{name}", size=64).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, card_of(encoder).num_features)
