"""Joint image-volume learning: what each phase trains, what it must not move, and what survives a kill."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source, Spec
from tacit.data.volume.volume import VolumeSample
from tacit.encoders.card import card_of
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.methods.clustering.joint_image_volume.joint_image_volume import (
    INTER,
    INTRA,
    MASK,
    JointImageVolume,
)
from tacit.methods.recipe import Recipe
from tacit.rng import Rng, seeded
from tacit.views.volume_transforms import VolumeChanges

SLICES = "dim=16&depth=1&heads=2&dim_head=4&hidden=24&downsample=2&groups=2"
SPEC = f"tacit/slices?image=tacit/convnet?width=4;depth=2&{SLICES}"
PATCH = (12, 12, 8)
COUNT, BATCH = 8, 4
PER_EPOCH = COUNT // BATCH
OPTIONS = {
    "hidden": 16,
    "projection": 8,
    "prototypes": 5,
    "volume_prototypes": 3,
    "queue": 16,
    "volume_queue": 8,
}
CLUSTERINGS = ["swav", "deepcluster"]
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


class FakeVolumes(Source):
    """Random volumes that fill the patch."""

    def __init__(self, count=COUNT, channels=1):
        super().__init__(Spec("volume", (channels, *PATCH)), [str(i) for i in range(count)])
        self.voxels = torch.rand(count, channels, *PATCH, generator=torch.Generator().manual_seed(0))

    def batch(self, index):
        index = torch.as_tensor(index)
        return Samples(self.voxels[index], index)


class FakeImages(Source):
    """Random images of another size, as uint8."""

    def __init__(self, count=6):
        super().__init__(Spec("image", (1, 20, 20)), [str(i) for i in range(count)])
        draw = torch.Generator().manual_seed(1)
        self.pixels = torch.randint(0, 256, (count, 1, 20, 20), generator=draw, dtype=torch.uint8)

    def batch(self, index):
        index = torch.as_tensor(index)
        return Samples(self.pixels[index], index, extra={"true_size": torch.full((len(index), 2), 20.0)})


def with_images(volumes, images, draws):
    draws = torch.tensor(draws)
    return Batch(volumes, beside=replace(images.batch(draws % len(images)), index=draws))


def step(epoch=0, at=0, epochs=3):
    return Step(epoch * PER_EPOCH + at, epochs * PER_EPOCH, epoch, epochs)


def in_phase(phase):
    """A step of this phase in a run of three epochs."""
    return step(epoch=phase)


def make(source=None, spec=SPEC, images=None, prepared=True, **options):
    with seeded(Rng.of(0)("test")):
        encoder = build_encoder(spec, channels=1, patch=PATCH)
        method = JointImageVolume(encoder, **{**OPTIONS, **options})
        method.images = images
        if prepared:
            method.train().prepare(source or FakeVolumes())
    return method


def views(method, now, batch=None, seed=0):
    batch = batch or FakeVolumes().batch(range(BATCH))
    batch = Batch(batch) if isinstance(batch, Samples) else batch
    return method.views(batch, Rng.of(seed)("views", now.index), now)


def loss(method, now, batch=None):
    return sum(method.losses(views(method, now, batch), now).values())


def run(method, epochs=3, source=None, optimizer=None, start=0, images=None):
    """Train as the trainer does, from step `start`; the loss of each step."""
    source = source or FakeVolumes()
    optimizer = optimizer or torch.optim.SGD(method.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
    history = []
    for index in range(start, epochs * PER_EPOCH):
        now = Step(index, epochs * PER_EPOCH, index // PER_EPOCH, epochs)
        torch.manual_seed(index)
        if index % PER_EPOCH == 0:
            method.on_epoch(source, now)
        first = index % PER_EPOCH * BATCH
        batch = source.batch(range(first, first + BATCH))
        if images is not None:
            batch = with_images(batch, images, [2 * index, 2 * index + 1])
        optimizer.zero_grad()
        total = loss(method, now, batch)
        total.backward()
        optimizer.step()
        method.after_step(now)
        history.append(total.item())
    return history


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", ["sequential", "alternate"])
@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_a_few_steps_run_in_all_phases(clustering, order, device):
    if device == "cuda":
        pytest.skip("steps on the device are checked by the gradient test")
    method = make(clustering=clustering, schedule=order, small=1, small_size=0.75)
    before = copy.deepcopy(method.encoder.state_dict())
    history = run(method, epochs=6)
    assert len(history) == 12
    assert all(np.isfinite(history))
    assert min(history) > 0
    moved = [n for n, v in method.encoder.state_dict().items() if not torch.equal(v, before[n])]
    assert {n.split(".")[0] for n in moved} == {"pyramid", "to_tokens", "layers"}


TRAINED = {
    INTRA: {"encoder.pyramid", "project", "intra"},
    MASK: {"encoder.layers", "mask_token", "decode"},
    INTER: {"encoder.pyramid", "encoder.to_tokens", "encoder.layers", "inter"},
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("clustering", CLUSTERINGS)
@pytest.mark.parametrize("phase", [INTRA, MASK, INTER])
def test_a_phase_gives_gradient_to_what_it_trains_and_to_nothing_else(phase, clustering, device):
    method = make(clustering=clustering, freeze_prototypes=0).to(device)
    method.on_epoch(FakeVolumes(), in_phase(phase))
    terms = method.losses(
        views(method, in_phase(phase), FakeVolumes().batch(range(BATCH)).to(device)), in_phase(phase)
    )
    assert list(terms) == ["intra", "mask", "inter"]
    assert [k for k, term in enumerate(terms.values()) if term != 0] == [phase]
    sum(terms.values()).backward()
    got = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = TRAINED[phase] if clustering == "swav" else TRAINED[phase] - {"intra", "inter"}
    assert {part for part in expected if any(name.startswith(part) for name in got)} == expected
    assert all(any(name.startswith(part) for part in expected) for name in got)


def test_weights_scale_each_loss():
    for phase in (INTRA, MASK, INTER):
        plain, heavy = make(), make(weights=(2.0, 3.0, 5.0))
        now = in_phase(phase)
        torch.manual_seed(0)
        a = loss(plain, now)
        torch.manual_seed(0)
        b = loss(heavy, now)
        assert b.item() == pytest.approx(a.item() * (2, 3, 5)[phase], rel=1e-5)


def test_the_image_encoder_and_the_slice_map_stand_still_while_slices_are_guessed():
    method = make(shares=(0, 1, 0))
    before = copy.deepcopy(method.state_dict())
    run(method, epochs=2, optimizer=torch.optim.SGD(method.parameters(), 0.1, momentum=0.9, weight_decay=0.1))
    after = method.state_dict()
    for name, value in before.items():
        if name.startswith(("encoder.pyramid", "encoder.to_tokens")):  # with BatchNorm's statistics
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["mask_token"], after["mask_token"])
    assert all(module.training for module in method.modules()), "the modes must be as they were"


def test_guessing_is_the_equation():
    method = make(mask_ratio=0.25)  # 2 of 8
    now = in_phase(MASK)
    seen = views(method, now)
    assert (seen.mask.sum(1) == 2).all()
    method.eval()
    with torch.no_grad():
        total = 0.0
        for view in (seen.first, seen.second):  # the same slices are hidden in both
            z = method.encoder.embed_slices(view)
            hidden = z.clone()
            hidden[seen.mask] = method.mask_token
            guess = method.decode(method.encoder.join(hidden))
            total += (guess - z).square().mean() / 2
        assert method.losses(seen, now)["mask"].item() == pytest.approx(total.item(), rel=1e-5)


def test_nothing_hidden_gives_the_token_no_gradient():
    method = make(mask_ratio=0.0)
    loss(method, in_phase(MASK)).backward()
    assert method.mask_token.grad is None or not method.mask_token.grad.any()
    assert method.decode.weight.grad.abs().sum() > 0


def test_assignments_of_volumes_get_no_gradient_from_their_own_view():
    method = make(freeze_prototypes=0)
    now = method.phases.within(in_phase(INTER))
    a, b = (nn.functional.normalize(torch.randn(BATCH, 16), dim=1).requires_grad_() for _ in range(2))
    targets = method.inter._targets(0, a @ method.inter.prototypes.weight.T, method.inter.prototypes.weight)
    assert not targets.requires_grad
    method.inter.loss([a, b], now).backward()
    assert a.grad.abs().sum() > 0
    assert torch.allclose(method.inter.prototypes.weight.norm(dim=1), torch.ones(3), atol=1e-6)


def test_prototypes_of_swav_are_fresh_in_each_phase_and_stand_still_at_first():
    method = make(freeze_prototypes=2)
    start = {name: copy.deepcopy(getattr(method, name).prototypes.weight.data) for name in ("intra", "inter")}
    run(method, epochs=9)
    fresh = make(freeze_prototypes=2)
    optimizer = torch.optim.SGD(fresh.parameters(), 0.05, momentum=0.9)
    for index in range(2):
        now = Step(index, 18, 0, 9)
        optimizer.zero_grad()
        loss(fresh, now).backward()
        optimizer.step()
        fresh.after_step(now)
    unit = nn.functional.normalize(start["intra"], dim=1)
    assert torch.allclose(fresh.intra.prototypes.weight, unit, atol=1e-6)
    assert torch.equal(fresh.inter.prototypes.weight, start["inter"]), "not before its phase"
    for name in ("intra", "inter"):
        assert not torch.allclose(
            getattr(method, name).prototypes.weight, nn.functional.normalize(start[name], dim=1)
        )


def test_queues_take_what_their_phase_saw():
    method = make()
    for phase, queue in ((INTRA, method.intra.queue), (INTER, method.inter.queue)):
        assert not queue.full
        for _ in range(4):
            loss(method, in_phase(phase))
            method.after_step(in_phase(phase))
        assert queue.full
        assert torch.allclose(queue.rows.norm(dim=2), torch.ones(queue.rows.shape[:2]), atol=1e-5)
        assert not queue.rows.requires_grad


def test_clusters_are_made_of_all_slices_images_and_volumes():
    images = FakeImages()
    method = make(clustering="deepcluster", images=images)
    slices = COUNT * PATCH[2]
    assert method.intra.embeddings.shape == (2, slices + len(images), 8)
    assert method.inter.embeddings.shape == (2, COUNT, 16)
    source = FakeVolumes()
    method.on_epoch(source, in_phase(INTRA))
    assert torch.allclose(method.intra.embeddings.norm(dim=2), torch.ones(2, slices + len(images)), atol=1e-5)
    assert (method.intra.labels >= 0).all()
    assert (method.inter.labels == -100).all(), "volumes are clustered in their phase"
    method.on_epoch(source, in_phase(INTER))
    assert (method.inter.labels >= 0).all()
    assert torch.allclose(method.inter.prototypes.norm(dim=2), torch.ones(3, 3), atol=1e-5)
    assert not method.inter.prototypes.requires_grad
    old = method.inter.embeddings.clone()
    seen = views(method, in_phase(INTER), source.batch([6, 1]))
    method.losses(seen, in_phase(INTER))
    changed = (method.inter.embeddings != old).any(2).any(0).nonzero()[:, 0]
    assert changed.tolist() == [1, 6]


def test_the_first_pass_leaves_the_network_as_it_was():
    method = make(clustering="deepcluster")
    before = copy.deepcopy(method.encoder.state_dict())
    method.on_epoch(FakeVolumes(), in_phase(INTRA))
    assert all(torch.equal(value, before[name]) for name, value in method.encoder.state_dict().items())


def test_banks_are_filled_again_only_where_a_phase_begins():
    method, source = make(clustering="deepcluster", shares=(1, 0, 1)), FakeVolumes()
    method.on_epoch(source, step(0, epochs=4))
    kept = method.intra.embeddings.clone()
    nn.init.normal_(method.project[0].weight)
    method.on_epoch(source, step(1, epochs=4))
    assert torch.equal(method.intra.embeddings, kept)
    alternate, now = make(clustering="deepcluster", schedule="alternate"), step(3, epochs=6)
    alternate.on_epoch(source, step(0, epochs=6))
    kept = alternate.intra.embeddings.clone()
    nn.init.normal_(alternate.project[0].weight)
    alternate.on_epoch(source, now)
    assert not torch.equal(alternate.intra.embeddings, kept)


def test_a_part_of_a_source_has_rows_of_its_own():
    whole = FakeVolumes(12)
    part = whole.subset(np.array([3, 11, 5, 7]))
    method = make(part, clustering="deepcluster", volume_prototypes=2)
    method.on_epoch(part, in_phase(INTER))
    assert torch.allclose(method.inter.embeddings.norm(dim=2), torch.ones(2, 4), atol=1e-5)
    seen = views(method, in_phase(INTRA), part.batch([1, 2]))
    assert set((seen.rows // PATCH[2]).tolist()) == {1, 2}


def test_images_beside_are_learned_from_too():
    images = FakeImages()
    for clustering in CLUSTERINGS:
        method = make(clustering=clustering, images=images, slices_per_volume=3)
        batch = with_images(FakeVolumes().batch(range(BATCH)), images, [7, 4])
        seen = views(method, in_phase(INTRA), batch)
        assert [crop.shape for crop in seen.crops] == [(BATCH * 3 + 2, 1, 12, 12)] * 2
        assert seen.rows[-2:].tolist() == [COUNT * PATCH[2] + 1, COUNT * PATCH[2] + 4]
        alone = views(method, in_phase(INTRA))
        assert torch.allclose(alone.crops[0], seen.crops[0][:-2])
        assert np.isfinite(run(method, images=images)).all()
    with pytest.raises(UsageError, match=r"method\.images"):
        views(make(clustering="deepcluster"), in_phase(INTRA), batch)
    colour = with_images(FakeVolumes().batch(range(BATCH)), images, [0])
    colour.beside.data = colour.beside.data.repeat(1, 3, 1, 1)
    with pytest.raises(UsageError, match="both as many"):
        views(make(), in_phase(INTRA), colour)


def test_views_are_a_function_of_the_sample_and_the_step():
    method, source = make(), FakeVolumes()
    for phase in (INTRA, MASK, INTER):
        all_of_them = views(method, in_phase(phase), source.batch(range(BATCH)))
        some = views(method, in_phase(phase), source.batch([2, 3]))
        whole = all_of_them.crops if phase == INTRA else (all_of_them.first, all_of_them.second)
        part = some.crops if phase == INTRA else (some.first, some.second)
        for a, b in zip(whole, part, strict=True):
            assert torch.allclose(a[-len(b) :], b, atol=1e-5)
        other = views(method, in_phase(phase), source.batch([2, 3]), seed=1)
        assert not torch.equal((other.crops if phase == INTRA else other)[0], part[0])


def test_the_two_views_of_a_volume_differ_by_two_changes():
    method = make(changes=VolumeChanges(changes=("flip", "gamma"), flip=1.0, gamma=0.0))
    x = FakeVolumes().batch(range(BATCH))
    seen = views(method, in_phase(INTER), x)
    for k in range(BATCH):
        a, b, original = seen.first[k], seen.second[k], x.data[k]
        if torch.equal(a, original):
            a, b = b, a
        assert torch.equal(a, original.flip(-1))
        assert torch.allclose(b, original)


def test_views_of_volumes_are_normalised_by_the_card():
    method = make(changes=VolumeChanges(changes=("flip", "gamma"), flip=0.0, gamma=0.0))
    method.encoder.card = replace(
        card_of(method.encoder), form=replace(card_of(method.encoder).form, mean=(0.25,), std=(0.5,))
    )
    x = FakeVolumes().batch(range(2))
    assert torch.allclose(views(method, in_phase(INTER), x).first, (x.data - 0.25) / 0.5, atol=1e-6)


@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_the_same_seed_gives_the_same_labels_and_losses(clustering):
    a, b = make(clustering=clustering), make(clustering=clustering)
    assert run(a) == run(b)
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("clustering", CLUSTERINGS)
@pytest.mark.parametrize("order", ["sequential", "alternate"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(clustering, order):
    whole = make(clustering=clustering, schedule=order)
    once = run(whole, epochs=6)
    for stop in (4, 9):  # at an epoch's end and within one
        first = make(clustering=clustering, schedule=order)
        optimizer = torch.optim.SGD(first.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
        source = FakeVolumes()
        original = first.after_step

        def until(now, first=first, original=original, stop=stop):
            original(now)
            if now.index + 1 == stop:
                raise KeyboardInterrupt

        first.after_step = until
        with pytest.raises(KeyboardInterrupt):
            run(first, epochs=6, source=source, optimizer=optimizer)
        second = make(clustering=clustering, schedule=order)
        second.load_state_dict(first.state_dict())
        again = torch.optim.SGD(second.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        parts = run(second, epochs=6, optimizer=again, start=stop)
        assert parts == once[stop:]


def volume_sample(*shape):
    reads = []

    def read(start, size):
        reads.append((tuple(start), tuple(size)))
        return torch.zeros(1, *size)

    volume = SimpleNamespace(shape=shape, name="a volume", read=read)
    return VolumeSample(volume, 5), reads


def test_a_patch_lies_around_the_centre_with_zeros_around_what_is_too_small():
    method = make()
    sample, reads = volume_sample(20, 13, 5)
    cut = method.cut(sample, np.random.default_rng(0))
    assert reads == [((4, 0, -2), PATCH)]
    assert cut.data.shape == (1, *PATCH)
    assert (cut.index, cut.target) == (5, None)


def test_a_random_patch_lies_anywhere_inside():
    method = make(crop="random")
    sample, reads = volume_sample(14, 12, 5)
    draw = np.random.default_rng(0)
    for _ in range(40):
        method.cut(sample, draw)
    assert {start for start, _ in reads} == {(0, 0, -2), (1, 0, -2), (2, 0, -2)}


def test_what_is_kept_is_the_slice_encoder_and_its_embedding_has_length_one():
    method = make().eval()
    z = method.encoder(torch.rand(3, 1, *PATCH))
    assert z.shape == (3, method.num_features)
    assert torch.allclose(z.norm(dim=1), torch.ones(3), atol=1e-6)


def test_another_encoder_is_refused_with_the_mend():
    with pytest.raises(UsageError, match=r"tacit/slices\?image=") as error:
        JointImageVolume(build_encoder("tacit/convnet", channels=1, size=16))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "phase", "mend"),
    [
        ({"prototypes": 200, "queue": 16}, INTRA, "--method.prototypes 48 or less"),
        ({"volume_prototypes": 13, "volume_queue": 8}, INTER, "--method.volume_prototypes 12 or less"),
    ],
)
def test_more_prototypes_than_samples_are_refused(options, phase, mend):
    method = make(**options)
    with pytest.raises(UsageError, match=mend):
        loss(method, in_phase(phase))
    with pytest.raises(UsageError, match=r"--method\.volume_prototypes 8 or less"):
        make(clustering="deepcluster", volume_prototypes=9)


def test_defaults_fit_small_data():
    swav = make(prototypes=None, volume_prototypes=None, queue=1024, volume_queue=256)
    assert np.isfinite(run(swav)).all()
    deep = make(clustering="deepcluster", prototypes=None, volume_prototypes=None)
    assert deep.intra.prototypes.shape[1] == max(2, COUNT * PATCH[2] // 20)
    assert deep.inter.prototypes.shape[1] == 2


@pytest.mark.parametrize(
    "options", [{"clustering": "kmeans"}, {"mask_ratio": 1.0}, {"slices_per_volume": 0}, {"schedule": "both"}]
)
def test_nonsense_is_one_line(options):
    with pytest.raises(UsageError) as error:
        make(**options)
    assert "\n" not in str(error.value)


def test_a_run_too_short_for_its_phases_says_so_before_it_begins():
    with pytest.raises(UsageError, match="--epochs 3"):
        make().on_epoch(FakeVolumes(), step(0, epochs=2))


def test_the_recipe_says_where_it_comes_from():
    assert isinstance(JointImageVolume.recipe, Recipe)
    assert "our choice" in JointImageVolume.recipe.source
