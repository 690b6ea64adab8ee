"""SwAV and DeepCluster-v2: what gets gradient, what is kept, what assigns whom."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tacit.batch import Batch, Step
from tacit.data.open import open_source
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.losses.clustering import cluster_cross_entropy, sinkhorn, swapped_prediction
from tacit.methods.parts.assignments import Recent, SwappedAssignments
from tacit.methods.parts.cluster_memory import ClusterMemory
from tacit.methods.registry import method_class, own_methods
from tacit.rng import Rng, seeded
from tacit.views.image import Augment
from tacit.views.multicrop import multi_crop

STEP = Step(20, 40, 2, 4)
CLUSTERING = [
    slug
    for slug, entry in own_methods().items()
    if entry.family == "clustering" and entry.modality == "image"
]
OPTIONS = {
    "swav": {"hidden": 32, "projection": 16, "prototypes": 6, "small": 2},
    "deepcluster": {"hidden": 32, "projection": 16, "prototypes": 5, "small": 2},
}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
RNG = Rng.of(0)("views", 0)


@pytest.fixture(scope="module")
def digits():
    whole = open_source("digits")
    return whole.subset(whole.splits["train"])


def few(digits, count=40):
    """A part of a part: positions in the whole are not those in the part."""
    return digits.parent.subset(digits.index[5 : 5 + count])


def make(slug, source=None, **options):
    with seeded(Rng.of(0)("test")):
        encoder = build_encoder("tacit/convnet?width=8", channels=1, size=8)
        method = method_class(slug)(encoder, **{**OPTIONS[slug], **options})
    if source is not None:
        method.prepare(source)
    return method


def unit(count, width, name="x", **kind):
    return F.normalize(torch.randn(count, width, generator=Rng.of(0)(name).torch()), dim=1)


# --- crops


def pixels(count=5, side=16):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8)
    return images, torch.full((count, 2), float(side)), torch.arange(count)


def crop(rng=RNG, rows=slice(None), **options):
    images, size, index = (value[rows] for value in pixels())
    return multi_crop(
        images, size, index, rng, size=14, augment=Augment(), mean=[0.0] * 3, std=[1.0] * 3, **options
    )


def test_crops_are_drawn_independently_and_small_ones_leave_large_ones_alone():
    crops = crop(small=3, small_size=0.5)
    assert [tuple(x.shape) for x in crops.large] == [(5, 3, 14, 14)] * 2
    assert [tuple(x.shape) for x in crops.small] == [(5, 3, 7, 7)] * 3
    assert not torch.equal(*crops.large)
    assert not torch.equal(crops.small[0], crops.small[1])
    assert all(torch.equal(a, b) for a, b in zip(crops.large, crop(small=0).large, strict=True))
    part = crop(small=3, small_size=0.5, rows=slice(3, 5))
    assert torch.allclose(part.small[2], crops.small[2][3:], atol=1e-6)
    assert part.index.tolist() == [3, 4]
    assert not torch.equal(crop(RNG("else")).large[0], crops.large[0])


def test_small_crops_see_small_parts():
    """A ramp's range within a crop says how much of the image the crop saw."""
    ramp = torch.linspace(0, 1, 64).expand(20, 1, 64, 64)
    plain = Augment(scale=(0.9, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
    crops = multi_crop(
        ramp, torch.full((20, 2), 64.0), torch.arange(20), RNG, size=32, augment=plain, mean=[0.0], std=[1.0],
        small=1, small_size=0.5, small_scale=(0.04, 0.09),
    )  # fmt: skip
    large, small = ((x.amax((1, 2, 3)) - x.amin((1, 2, 3))) for x in (crops.large[0], crops.small[0]))
    assert large.min() > 0.75  # sides of 0.95 at aspects up to 4/3
    assert small.max() < 0.4
    assert small.min() > 0.1


@pytest.mark.parametrize("wrong", [{"large": 0}, {"small": -1}, {"small_size": 0}, {"small_size": 1.5}])
def test_crops_refuse_nonsense(wrong):
    with pytest.raises(UsageError, match="multi-crop"):
        crop(**wrong)


# --- both methods


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("slug", CLUSTERING)
def test_a_step_gives_gradient_to_all_that_is_trained(slug, device, digits):
    source = few(digits)
    method = make(slug, source).to(device)
    method.on_epoch(source, Step(0, 40, 0, 4))
    views = method.views(Batch(source.batch(np.arange(16)).to(device)), RNG, STEP)
    (loss,) = method.losses(views, STEP).values()
    assert torch.isfinite(loss)
    loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert "weight" not in name or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("slug", CLUSTERING)
def test_the_loss_is_the_same_when_the_large_crops_are_swapped(slug, digits):
    source = few(digits)
    method = make(slug, source, small=0).eval()
    method.on_epoch(source, Step(0, 40, 0, 4))
    crops = method.views(Batch(source.batch(np.arange(16))), RNG, STEP)
    swapped = crops._replace(large=crops.large[::-1])
    one, other = (method.losses(x, STEP)[slug].item() for x in (crops, swapped))
    assert one == pytest.approx(other, abs=1e-5)
    same = crops._replace(large=(crops.large[0],) * 2)
    assert method.losses(same, STEP)[slug].item() != pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("slug", CLUSTERING)
def test_the_loss_falls_on_digits(slug, digits):
    augment = Augment(scale=(0.6, 1.0), flip=0.0, grayscale=0.0)
    method = make(
        slug,
        few(digits, 256),
        augment=augment,
        small=0,
        **({"freeze_prototypes": 5} if slug == "swav" else {}),
    )
    source = few(digits, 256)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    history = []
    for i in range(48):
        step = Step(i, 48, i // 4, 12)
        if i % 4 == 0:
            method.on_epoch(source, step)
        rows = np.arange(64) + 64 * (i % 4)
        optimizer.zero_grad()
        (loss,) = method.losses(
            method.views(Batch(source.batch(rows)), Rng.of(0)("views", i), step), step
        ).values()
        loss.backward()
        optimizer.step()
        method.after_step(step)
        history.append(loss.item())
    assert np.mean(history[-8:]) < np.mean(history[:8]) - 0.1


@pytest.mark.parametrize("slug", CLUSTERING)
def test_everything_that_learns_is_saved(slug, digits):
    source = few(digits)
    method = make(slug, source, **({"queue": 8, "queue_from": 0.0} if slug == "swav" else {}))
    method.on_epoch(source, Step(0, 40, 0, 4))
    views = method.views(Batch(source.batch(np.arange(16))), RNG, STEP)
    method.losses(views, STEP)
    method.after_step(STEP)
    other = make(slug, source, **({"queue": 8, "queue_from": 0.0} if slug == "swav" else {}))
    other.load_state_dict(method.state_dict())
    method.eval(), other.eval()
    assert torch.equal(*(m.losses(views, STEP)[slug] for m in (method, other)))


@pytest.mark.parametrize("slug", CLUSTERING)
def test_an_encoder_of_one_size_takes_no_small_crops(slug):
    encoder = build_encoder("timm/vit_tiny_patch16_224", channels=3, size=224)
    with pytest.raises(UsageError, match=r"--method\.small 0"):
        method_class(slug)(encoder)
    method_class(slug)(encoder, small=0)


def test_crops_of_one_size_pass_through_the_encoder_together(digits):
    method = make("swav", small=3)
    seen = []
    method.encoder.register_forward_hook(lambda module, given, out: seen.append(tuple(given[0].shape)))
    method.project.register_forward_hook(lambda module, given, out: seen.append(tuple(given[0].shape)))
    crops = method.views(Batch(few(digits).batch(np.arange(4))), RNG, STEP)
    embeddings = method.embed_crops(crops)
    assert seen == [(8, 1, 8, 8), (12, 1, 3, 3), (20, 32)]
    assert [tuple(e.shape) for e in embeddings] == [(4, 16)] * 5
    assert torch.allclose(torch.cat(embeddings).norm(dim=1), torch.ones(20), atol=1e-6)
    alone = method.eval().embed_crops(crops._replace(small=crops.small[2:]))[2]
    assert torch.allclose(method.embed_crops(crops)[4], alone, atol=1e-6)


# --- SwAV


def swapped(**options):
    with seeded(Rng.of(0)("prototypes")):
        return SwappedAssignments(4, **{"prototypes": 3, "freeze": 0, **options})


def test_swav_minimises_its_papers_loss(digits):
    method = make("swav", temperature=0.2, epsilon=0.1).eval()
    crops = method.views(Batch(few(digits).batch(np.arange(16))), RNG, STEP)
    loss = method.losses(crops, STEP)["swav"].item()
    prototypes = F.normalize(method.assign.prototypes.weight, dim=1)
    scores = [e @ prototypes.T for e in method.embed_crops(crops)]
    targets = {a: sinkhorn(scores[a], epsilon=0.1) for a in (0, 1)}
    assert loss == pytest.approx(swapped_prediction(scores, targets, 0.2).item(), abs=1e-5)
    assert method.notes["prototypes"].item() == 6


def test_assignments_get_no_gradient():
    """The gradient is that of a cross-entropy with constant targets."""
    assign = swapped()
    embeddings = [unit(6, 4, name).requires_grad_() for name in "ab"]
    assign.loss(embeddings, STEP).backward()
    weight = assign.prototypes.weight.detach()
    targets = [sinkhorn(e.detach() @ weight.T) for e in embeddings]
    for other, e in ((1, embeddings[0]), (0, embeddings[1])):
        p = (e.detach() @ weight.T / 0.1).softmax(1)
        by_hand = (p - targets[other]) @ weight / 0.1 / 6 / 2
        torch.testing.assert_close(e.grad, by_hand, rtol=0, atol=1e-5)


def test_prototypes_are_unit_vectors_whenever_they_are_used():
    assign = swapped()
    with torch.no_grad():
        assign.prototypes.weight.mul_(torch.tensor([[5.0], [0.1], [1.0]]))
    direction = F.normalize(assign.prototypes.weight.detach(), dim=1)
    first = assign.loss([unit(6, 4, "a"), unit(6, 4, "b")], STEP)
    torch.testing.assert_close(assign.prototypes.weight.detach(), direction, rtol=0, atol=1e-6)
    assert assign.loss([unit(6, 4, "a"), unit(6, 4, "b")], STEP).item() == pytest.approx(
        first.item(), abs=1e-5
    )


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("freeze", "until"), [(3, 3), (None, 4), (0, 0)])  # steps of which an epoch has four
def test_prototypes_stand_still_at_first(optimizer, freeze, until):
    assign = swapped(freeze=freeze)
    trained = optimizer(assign.parameters(), lr=0.1, weight_decay=0.1)
    before, moved = F.normalize(assign.prototypes.weight.detach().clone(), dim=1), []
    for i in range(6):
        trained.zero_grad()
        step = Step(i, 8, i // 4, 2)
        assign.loss([unit(6, 4, f"a{i}"), unit(6, 4, f"b{i}")], step).backward()
        assert (assign.prototypes.weight.grad.abs().sum() > 0) == (i >= until)
        trained.step()
        assign.flush()
        now = F.normalize(assign.prototypes.weight.detach(), dim=1)
        moved.append((now - before).abs().max().item() > 1e-4)
    assert moved == [False] * until + [True] * (6 - until)


def test_a_queue_is_full_when_its_last_row_is_and_holds_the_newest_first():
    queue, made = Recent(5, 4), [unit(4, 4, f"{i}").reshape(2, 2, 4) for i in range(3)]  # two of two views
    for i, pair in enumerate(made):
        assert not queue.full
        queue.put(pair)
        assert not queue.rows[0, 2 * i :].any()  # not before the step is taken
        queue.flush()
        queue.flush()  # nothing is moved twice
    assert queue.full
    for view in (0, 1):
        expected = torch.cat([made[2][view], made[1][view], made[0][view][:1]])
        assert torch.equal(queue.rows[view], expected)
        assert torch.equal(queue.share(view), expected)


def test_more_new_rows_than_the_queue_has():
    queue, new = Recent(3, 4), unit(10, 4).reshape(2, 5, 4)
    queue.put(new)
    queue.flush()
    assert torch.equal(queue.rows, new[:, :3])


def test_a_queue_acts_when_it_is_full_and_on_assignments_only():
    with_queue, without = swapped(queue=8), swapped()
    held = []
    for i in range(4):
        embeddings = [unit(4, 4, f"{view}{i}").requires_grad_() for view in "ab"]
        found, plain = (assign.loss(embeddings, STEP) for assign in (with_queue, without))
        if i < 2:  # eight rows are there after two steps
            assert found.item() == plain.item()
        else:
            weight = without.prototypes.weight.detach()
            scores = [e @ weight.T for e in embeddings]
            targets = {
                a: sinkhorn(torch.cat([torch.cat(held[::-1])[:8, a] @ weight.T, scores[a]]))[-4:]
                for a in (0, 1)
            }
            assert found.item() == pytest.approx(swapped_prediction(scores, targets).item(), abs=1e-5)
            assert found.item() != pytest.approx(plain.item(), abs=1e-4)
        found.backward()
        assert not with_queue.queue.rows.requires_grad
        with_queue.flush()
        held.append(torch.stack([e.detach() for e in embeddings], 1))


def test_a_queue_begins_when_it_should_and_of_length_zero_is_none():
    assign = swapped(queue=8, queue_from=0.5)
    for index, filled in ((19, 0), (20, 4), (21, 8)):
        assign.loss([unit(4, 4, f"a{index}"), unit(4, 4, f"b{index}")], Step(index, 40, 2, 4))
        assign.flush()
        assert assign.queue.rows[0].any(dim=1).sum().item() == filled
    none = swapped(queue=0)
    assert none.queue is None
    assert [name for name, _ in none.named_buffers()] == []


def test_prototypes_are_no_more_than_the_samples_they_share():
    pair = [unit(4, 4, "a"), unit(4, 4, "b")]
    with pytest.raises(UsageError, match=r"--method\.prototypes 4 or less, or --method\.queue 5 or more"):
        swapped(prototypes=9).loss(pair, STEP)
    assert swapped(prototypes=9, queue=5).loss(pair, STEP) > 0
    for queue, count in ((0, 4), (30, 34), (5000, 3000)):
        assign = swapped(prototypes=None, queue=queue)
        assert assign.count(4) == count
        assign.loss(pair, STEP).backward()
        used = assign.prototypes.weight.grad.abs().sum(1) > 0
        assert not used[count:].any()
        assert used[:count].float().mean() > 0.9


@pytest.mark.parametrize(
    "wrong", [{"prototypes": 1}, {"queue": -1}, {"queue_from": 1.5}, {"freeze_prototypes": -1}]
)
def test_swav_refuses_nonsense(wrong):
    with pytest.raises(UsageError):
        make("swav", **wrong)


# --- DeepCluster-v2


def test_the_first_pass_embeds_every_image_once_with_the_batch_statistics(digits, monkeypatch):
    monkeypatch.setattr("tacit.methods.clustering.deepcluster._BLOCK", 16)
    source = few(digits, 40)
    method = make("deepcluster", source)
    statistics = method.encoder.layers[1].running_mean.clone()
    method.on_epoch(source, Step(0, 40, 0, 4))
    assert torch.equal(method.encoder.layers[1].running_mean, statistics)
    bank = method.memory.embeddings
    assert bank.shape == (2, 40, 16)
    assert torch.allclose(bank.norm(dim=2), torch.ones(2, 40), atol=1e-5)
    assert not torch.allclose(bank[0], bank[1], atol=1e-2)
    crops = method.crops(source.batch(np.arange(24, 40)), Rng.of(0)("deepcluster"), small=0)
    last = method.embed_crops(crops)  # the last of three blocks overlaps the second
    assert torch.allclose(bank[:, 24:], torch.stack(last), atol=1e-5)
    filled = bank.clone()
    method.on_epoch(source, Step(10, 40, 1, 4))  # no second pass
    assert torch.equal(method.memory.embeddings, filled)


def test_heads_cluster_the_banks_in_turn():
    memory = ClusterMemory(30, 4, clusters=3)
    memory.write(torch.arange(30), [unit(30, 4, "first"), unit(30, 4, "second")])
    memory.cluster(Rng.of(0))
    prototypes, labels = memory.prototypes.clone(), memory.labels.clone()
    for head, bank in enumerate((0, 1, 0)):
        assert torch.equal(labels[head], (memory.embeddings[bank] @ prototypes[head].T).argmax(1))
        assert torch.allclose(prototypes[head].norm(dim=1), torch.ones(3), atol=1e-6)
    assert not torch.equal(labels[0], labels[2])  # they start with other images
    memory.embeddings[1] = unit(30, 4, "third")
    memory.cluster(Rng.of(0))
    assert torch.equal(memory.labels[[0, 2]], labels[[0, 2]])
    assert not torch.equal(memory.labels[1], labels[1])


def test_deepcluster_minimises_its_papers_loss_and_its_banks_follow(digits):
    source = few(digits)
    method = make("deepcluster", source, temperature=0.2).eval()
    method.on_epoch(source, Step(0, 40, 0, 4))
    chosen = np.array([7, 3, 30, 11])
    before, labels = method.memory.embeddings.clone(), method.memory.labels.clone()
    crops = method.views(Batch(source.batch(chosen)), RNG, STEP)
    loss = method.losses(crops, STEP)["deepcluster"].item()
    embeddings = method.embed_crops(crops)
    terms = [
        F.cross_entropy(e @ method.memory.prototypes[h].T / 0.2, labels[h][chosen]).item()
        for h in range(3)
        for e in embeddings
    ]
    assert len(terms) == 3 * 4
    assert loss == pytest.approx(np.mean(terms), abs=1e-5)
    assert torch.allclose(method.memory.embeddings[:, chosen], torch.stack(embeddings[:2]), atol=1e-6)
    others = np.setdiff1d(np.arange(40), chosen)
    assert torch.equal(method.memory.embeddings[:, others], before[:, others])
    assert torch.equal(method.memory.labels, labels)  # until the next epoch


def test_images_without_a_cluster_count_nothing():
    memory = ClusterMemory(10, 4, clusters=3)
    memory.prototypes.copy_(torch.stack([unit(3, 4, f"{h}") for h in range(3)]))
    embeddings = [unit(4, 4, name).requires_grad_() for name in "ab"]
    rows = torch.arange(4)
    assert memory.loss(embeddings, rows).item() == 0  # no label yet
    memory.labels[:, 1] = torch.tensor([2, 0, 1])
    loss = memory.loss(embeddings, rows)
    alone = [e[1:2] for e in embeddings]
    expected = [
        cluster_cross_entropy([e @ memory.prototypes[h].T for e in alone], memory.labels[h, 1:2])
        for h in range(3)
    ]
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-6)
    loss.backward()
    assert not embeddings[0].grad[[0, 2, 3]].any()
    assert embeddings[0].grad[1].any()
    assert not memory.prototypes.requires_grad


def test_deepclusters_prototypes_are_no_more_than_the_images(digits):
    with pytest.raises(UsageError, match=r"--method\.prototypes 40 or less"):
        make("deepcluster", few(digits), prototypes=41)
    for count, clusters in ((40, 2), (200, 10)):
        method = make("deepcluster", few(digits, count), prototypes=None)
        assert method.memory.prototypes.shape == (3, clusters, 16)


def test_the_same_run_finds_the_same_clusters(digits):
    source = few(digits)
    states = []
    for _ in range(2):
        method = make("deepcluster", source)
        method.on_epoch(source, Step(0, 40, 0, 4))
        states.append(method.memory.labels.clone())
    assert torch.equal(*states)
    method.on_epoch(source, Step(10, 40, 1, 4))  # another epoch starts with other images
    assert not torch.equal(method.memory.labels, states[0])
