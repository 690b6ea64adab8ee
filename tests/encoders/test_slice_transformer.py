import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tacit.data.volume.form import VolumeForm
from tacit.encoders.card import EncoderCard, attach_card, card_of, with_card
from tacit.encoders.saved import save_encoder
from tacit.encoders.slice_transformer import SliceEncoder, SlicePyramid, build_slices
from tacit.encoders.zoo import build_encoder, is_pretrained, load_encoder
from tacit.errors import UsageError
from tacit.rng import Rng, seeded

SMALL = {"dim": 16, "depth": 2, "heads": 2, "dim_head": 4, "hidden": 24, "downsample": 2, "groups": 2}


def make(image="tacit/convnet?width=4&depth=2", *, size=16, channels=1, **options):
    with seeded(Rng.of(0)("test")):
        trunk = build_encoder(image, channels=channels, size=size)
        return SliceEncoder(trunk, **{**SMALL, **options}).eval()


def volumes(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_pyramid_of_a_resnet50_has_3840_numbers_and_5888_with_the_last_twice():
    with torch.device("meta"):
        image = build_encoder("timm/resnet50", channels=1, size=128)
    assert SlicePyramid(image).width == 256 + 512 + 1024 + 2048
    assert SlicePyramid(image, repeat_last=True).width == 5888


def test_the_sizes_of_the_published_layers():
    with torch.device("meta"):
        encoder = SliceEncoder(build_encoder("timm/resnet50", channels=1, size=128), repeat_last=True)
        by_code = SliceEncoder(encoder.image, attend_over="features", slices=64)
    assert encoder.num_features == 640
    assert encoder.to_tokens.weight.shape == (640, 5888)
    assert len(encoder.layers) == 4

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(encoder.layers[0].attention) == 477_953
    assert count(by_code.layers[0].attention) == 45_953


def test_stages_are_pooled_and_of_length_one():
    image = build_encoder("timm/resnet18", channels=1, size=32).eval()
    x = volumes(3, 1, 32, 32)
    widths = [64, 128, 256, 512]
    pooled = SlicePyramid(image)(x).split(widths, 1)
    assert all(torch.allclose(part.norm(dim=1), torch.ones(3), atol=1e-5) for part in pooled)
    assert torch.allclose(pooled[-1], F.normalize(image(x), dim=1), atol=1e-5)
    y = image.layer1(image.maxpool(image.act1(image.bn1(image.conv1(x)))))
    assert torch.allclose(pooled[0], F.normalize(y.mean((2, 3)), dim=1), atol=1e-5)
    twice = SlicePyramid(image, repeat_last=True)(x)
    assert torch.equal(twice[:, -512:], twice[:, -1024:-512])


def test_shapes_and_the_unit_length_of_z():
    encoder = make("timm/resnet18", size=32, dim=16)
    x = volumes(2, 1, 32, 32, 6)
    tokens = encoder.embed_slices(x)
    assert tokens.shape == (2, 6, 16)
    assert torch.allclose(encoder.join(tokens), encoder.forward_features(x))
    z = encoder(x)
    assert z.shape == (2, encoder.num_features)
    assert torch.allclose(z.norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(z, F.normalize(encoder.forward_features(x).mean(1), dim=1))


def test_a_slice_is_embedded_as_the_image_that_it_is():
    encoder = make()
    x = volumes(2, 1, 16, 12, 5)
    tokens = encoder.embed_slices(x)
    assert torch.allclose(tokens[1, 3], encoder.to_tokens(encoder.pyramid(x[1:, ..., 3]))[0], atol=1e-6)


@pytest.mark.parametrize("slices", [1, 3, 8, 9])
@pytest.mark.parametrize("attention", ["deformable", "plain"])
def test_any_number_of_slices(slices, attention):
    z = make(attention=attention)(volumes(2, 1, 16, 16, slices))
    assert torch.isfinite(z).all()


def test_attending_over_features_fixes_the_number_of_slices():
    encoder = make(attend_over="features", slices=6)
    assert encoder(volumes(2, 1, 16, 16, 6)).shape == (2, 16)
    with pytest.raises(UsageError, match=r"\(B, C, X, Y, 6\)"):
        encoder(volumes(2, 1, 16, 16, 8))
    with pytest.raises(UsageError, match="slices=N"):
        make(attend_over="features")


def test_a_layer_is_post_norm():
    layer = make(depth=1).layers[0]
    x = volumes(2, 6, 16)
    first = F.layer_norm(x + layer.attention(x.mT).mT, (16,))
    expected = F.layer_norm(first + layer.feed(first), (16,))
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_the_order_of_slices_counts_only_by_offsets_and_position_bias():
    encoder, x = make(), volumes(2, 1, 16, 16, 8)
    assert not torch.allclose(encoder(x.flip(-1)), encoder(x), atol=1e-5)
    for layer in encoder.layers:
        nn.init.zeros_(layer.attention.to_offsets[2].weight)
        nn.init.zeros_(layer.attention.bias.layers[-1].weight)
    assert torch.allclose(encoder(x.flip(-1)), encoder(x), atol=1e-5)


def test_volumes_of_a_batch_do_not_mix_and_all_parts_get_gradient():
    encoder = make().train()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = volumes(3, 1, 16, 16, 6).requires_grad_()
    encoder(x)[1, 0].backward()
    assert x.grad[1].abs().sum() > 0
    assert x.grad[[0, 2]].abs().sum() == 0
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_the_image_encoder_keeps_a_card_with_the_normalisation_of_the_whole():
    encoder = make()
    card = EncoderCard("", VolumeForm.make(1, (0.2,), (0.3,)), 16)
    assert card_of(with_card(encoder, card)) is card
    assert card_of(encoder.image).form.mean == (0.2,)
    assert card_of(encoder.image).form.std == (0.3,)
    assert card_of(encoder.image).spec == "tacit/convnet?width=4&depth=2"
    attach_card(encoder, channels=1, size=16)
    assert card_of(encoder.image).form.mean == (0.5,)


def test_a_spec_names_the_image_encoder_and_its_options():
    a, b = (
        build_slices(channels=1, size=16, image="tacit/convnet?width=4;depth=2", **SMALL) for _ in range(2)
    )
    assert a.image.num_features == 8
    assert not torch.equal(a.to_tokens.weight, b.to_tokens.weight)
    with seeded(Rng.of(1)):
        c = build_slices(channels=1, size=16, image="tacit/convnet?width=4;depth=2", **SMALL)
    with seeded(Rng.of(1)):
        d = build_slices(channels=1, size=16, image="tacit/convnet?width=4;depth=2", **SMALL)
    assert torch.equal(c.image.layers[0].weight, d.image.layers[0].weight)
    assert not torch.equal(a.image.layers[0].weight, d.image.layers[0].weight)
    with pytest.raises(UsageError, match="load_encoder"):
        build_slices(image="run:runs/photos")


@pytest.mark.parametrize("options", [{"attention": "dense"}, {"attend_over": "time"}, {"dim": 15}])
def test_nonsense_is_one_line(options):
    with pytest.raises(UsageError) as error:
        make(**options)
    assert "\n" not in str(error.value)


SPEC = (
    "tacit/slices?image=tacit/convnet?width=4;depth=2&dim=16&depth=2&heads=2&dim_head=4&hidden=24&downsample=2"
    "&groups=2"
)


def test_the_zoo_builds_it_and_a_run_loads_it_whole_and_its_image_encoder_alone(tmp_path):
    encoder = build_encoder(SPEC, channels=2, patch=(16, 12, 6), seed=3).eval()
    card = card_of(encoder)
    assert (card.form.modality, card.form.patch, card.num_features, card.form.mean) == (
        "volume",
        (16, 12, 6),
        16,
        (0.0, 0.0),
    )
    assert card_of(encoder.image).form.size == 16
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    x = volumes(2, 2, 16, 12, 6)
    assert torch.equal(loaded(x), encoder(x))
    assert torch.equal(loaded.image(x[..., 0]), encoder.image(x[..., 0]))
    assert card_of(loaded.image).spec == "tacit/convnet?width=4&depth=2"
    assert card_of(loaded.image).learned
    twin = load_encoder(tmp_path, random_seed=1)
    assert not torch.equal(twin.image(x[..., 0]), encoder.image(x[..., 0]))
    assert not card_of(twin.image).learned


def test_a_pretrained_image_encoder_brings_its_statistics_and_its_twin_is_random(tmp_path):
    image = build_encoder("timm/resnet18", channels=3, size=96, seed=5)
    weights = tmp_path / "weights.safetensors"
    save_file(image.state_dict(), weights)
    spec = f"tacit/slices?image=timm/resnet18?weights={weights}&small_input=false&dim=16"
    assert is_pretrained(spec)
    assert not is_pretrained(SPEC)
    encoder = build_encoder(spec, channels=1, patch=(32, 32, 4))
    assert card_of(encoder).form.mean == pytest.approx((sum((0.485, 0.456, 0.406)) / 3,))
    assert card_of(encoder.image).form.mean == card_of(encoder).form.mean
    assert card_of(encoder).learned
    first = encoder.image.layer1[0].conv1.weight
    twin = build_encoder(f"random:{spec}", channels=1, patch=(32, 32, 4))
    assert torch.equal(first, image.layer1[0].conv1.weight)
    assert not torch.equal(first, twin.image.layer1[0].conv1.weight)


def test_patches_that_do_not_fit_are_one_line():
    with pytest.raises(UsageError, match="X,Y,6"):
        build_encoder(SPEC + "&attend_over=features&slices=6", channels=1, patch=(16, 16, 8))
    with pytest.raises(UsageError, match="made for images"):
        build_encoder("timm/resnet18", channels=1, patch=(16, 16, 8))
