"""SimCLR, DCL, DCLW, MoCo and NNCLR: what gets gradient, what moves, what they compute."""

import pytest
import torch
from torch.nn import functional as F

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source, Spec
from tacit.encoders.zoo import build_encoder
from tacit.losses.contrastive import (
    decoupled_contrastive,
    decoupled_contrastive_weighted,
    info_nce,
    nearest,
    npc_multiplier,
)
from tacit.methods.registry import method_class, own_methods
from tacit.rng import Rng, seeded

STEP = Step(0, 10, 0, 1)
CONTRASTIVE = [slug for slug, entry in own_methods().items() if entry.family == "contrastive"]
OPTIONS = {"moco": {"queue": 20}, "nnclr": {"queue": 20, "hidden": 32, "prediction_hidden": 32}}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def make(slug, **options):
    with seeded(Rng.of(0)("test")):
        encoder = build_encoder("tacit/convnet", channels=3, size=16)
        return method_class(slug)(encoder, **{**OPTIONS.get(slug, {}), **options})


def batch(count=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=draw, dtype=torch.uint8)
    return Batch(Samples(pixels, torch.arange(count), extra={"true_size": torch.full((count, 2), 16.0)}))


RNG = Rng.of(0)("views", 0)


def losses(method, data=None):
    return method.losses(method.views(data or batch(), RNG, STEP), STEP)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("slug", CONTRASTIVE)
def test_a_step_gives_gradient_to_all_that_is_trained_and_to_nothing_else(slug, device):
    method = make(slug).to(device)
    total = sum(losses(method, data=batch().to(device)).values())
    assert total.ndim == 0
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # a bias before BatchNorm or normalisation may get none; a weight must
            assert "weight" not in name or parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    frozen = {name.split(".")[0] for name, p in method.named_parameters() if not p.requires_grad}
    assert frozen == ({"key_encoder", "key_project"} if slug == "moco" else set())


@pytest.mark.parametrize("slug", CONTRASTIVE)
def test_views_are_a_function_of_the_sample_and_the_step(slug):
    method, data = make(slug), batch()
    a, b = method.views(data, Rng.of(0)("views", 300), STEP)
    assert a.shape == b.shape == (8, 3, 16, 16)
    assert not torch.equal(a, b)
    whole = data.unlabelled
    sizes = {"true_size": whole.extra["true_size"][5:]}
    part = Batch(Samples(whole.data[5:], whole.index[5:], extra=sizes))
    assert torch.allclose(method.views(part, Rng.of(0)("views", 300), STEP)[1], b[5:], atol=1e-6)
    assert not torch.equal(method.views(data, Rng.of(0)("views", 301), STEP)[0], a)


def projections(method, views):
    return [method.project(method.encoder(view)) for view in views]


def test_simclr_and_dcl_minimise_their_papers_loss():
    for slug, function in (("simclr", info_nce), ("dcl", decoupled_contrastive)):
        method = make(slug, temperature=0.2)
        views = method.views(batch(), Rng.of(0), STEP)
        expected = function(*projections(method, views), 0.2)
        (loss,) = method.losses(views, STEP).values()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
        q = npc_multiplier(*projections(method, views), 0.2).mean()
        assert method.notes["npc"].item() == pytest.approx(q.item(), abs=1e-5)


@pytest.mark.parametrize("detach", [True, False])
def test_dclw_minimises_its_papers_loss(detach):
    method = make("dclw", temperature=0.2, sigma=0.3, detach_weight=detach)
    views = method.views(batch(), Rng.of(0), STEP)
    grads = []
    for loss in (
        method.losses(views, STEP)["dclw"],
        decoupled_contrastive_weighted(*projections(method, views), 0.2, 0.3, detach_weight=detach),
    ):
        method.zero_grad()
        loss.backward()
        grads.append((loss.item(), method.project[0].weight.grad.clone()))
    assert grads[0][0] == pytest.approx(grads[1][0], abs=1e-5)
    assert torch.allclose(grads[0][1], grads[1][1], atol=1e-4)


def test_dclw_tends_to_dcl_for_a_large_sigma():
    views = make("dcl").views(batch(), Rng.of(0), STEP)
    dcl = make("dcl").losses(views, STEP)["dcl"].item()
    assert make("dclw", sigma=1e6).losses(views, STEP)["dclw"].item() == pytest.approx(dcl, abs=1e-4)
    assert make("dclw", sigma=0.3).losses(views, STEP)["dclw"].item() != pytest.approx(dcl, abs=1e-3)


def test_moco_by_hand_and_its_decoupled_form():
    method, decoupled = make("moco", temperature=0.5), make("moco", temperature=0.5, decoupled=True)
    views = method.views(batch(), Rng.of(0), STEP)
    query = F.normalize(projections(method, views)[0], dim=1)
    key = F.normalize(method.key_project(method.key_encoder(views[1])), dim=1)
    positive = (query * key).sum(1) / 0.5
    negatives = query @ method.queue.rows.T / 0.5
    softmax = torch.cat([positive[:, None], negatives], 1)
    zero = torch.zeros(8, dtype=torch.int64)
    assert method.losses(views, STEP)["moco"].item() == pytest.approx(
        F.cross_entropy(softmax, zero).item(), abs=1e-5
    )
    expected = (negatives.logsumexp(1) - positive).mean()
    assert decoupled.losses(views, STEP)["moco"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_moco_moves_its_key_encoder_and_queue_only_after_the_step():
    method = make("moco", momentum=0.75)
    key_before = method.key_encoder.layers[0].weight.clone()
    rows_before = method.queue.rows.clone()
    losses(method)
    with torch.no_grad():
        method.encoder.layers[0].weight.add_(1.0)
    assert torch.equal(method.queue.rows, rows_before)
    method.after_step(STEP)
    assert torch.allclose(method.key_encoder.layers[0].weight, key_before + 0.25, atol=1e-6)
    assert torch.equal(method.queue.rows[8:], rows_before[8:])
    assert not torch.equal(method.queue.rows[:8], rows_before[:8])


def test_symmetric_moco_is_the_mean_of_both_ways():
    method = make("moco", symmetric=True)
    method.eval()  # so that BatchNorm statistics do not move between the two calls
    a, b = method.views(batch(), Rng.of(0), STEP)
    both = method.losses((a, b), STEP)["moco"]
    method.symmetric = False
    ways = [method.losses(pair, STEP)["moco"] for pair in ((a, b), (b, a))]
    assert both.item() == pytest.approx(sum(w.item() for w in ways) / 2, abs=1e-5)


@pytest.mark.parametrize("decoupled", [False, True])
def test_nnclr_by_hand(decoupled):
    method = make("nnclr", decoupled=decoupled, temperature=0.3)
    views = method.views(batch(), Rng.of(0), STEP)
    z = projections(method, views)
    p = [F.normalize(method.predict_neighbour(x), dim=1) for x in z]
    total = 0.0
    for i in (0, 1):
        neighbour = nearest(F.normalize(z[i], dim=1), method.queue.rows)
        logits = neighbour @ p[1 - i].T / 0.3
        positive = logits.diag()
        others = logits.masked_fill(torch.eye(8, dtype=bool), float("-inf")) if decoupled else logits
        total += (others.logsumexp(1) - positive).mean() / 2
    assert method.losses(views, STEP)["nnclr"].item() == pytest.approx(total.item(), abs=1e-4)


@pytest.mark.parametrize("slug", ["moco", "nnclr"])
def test_a_queue_is_at_most_a_quarter_of_the_data(slug):
    method = make(slug, queue=100)
    method.prepare(Source(Spec("image", (3, 16, 16)), [str(i) for i in range(30)]))
    assert len(method.queue) == 7
    method.prepare(Source(Spec("image", (3, 16, 16)), [str(i) for i in range(300)]))
    assert len(method.queue) == 7


@pytest.mark.parametrize("slug", CONTRASTIVE)
def test_the_loss_falls_when_one_batch_is_learned(slug):
    method = make(slug)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        total = sum(losses(method).values())  # the same views each time
        total.backward()
        optimizer.step()
        if slug not in ("moco", "nnclr"):  # their queues stand still, so that the task does too
            method.after_step(STEP)
        history.append(total.item())
    assert history[-1] < history[0] - 0.1


@pytest.mark.parametrize("slug", CONTRASTIVE)
def test_everything_that_learns_is_saved(slug):
    method = make(slug)
    losses(method)
    method.after_step(STEP)
    other = make(slug)
    other.load_state_dict(method.state_dict())
    view = (torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16))
    method.eval(), other.eval()
    assert torch.equal(*(sum(m.losses(view, STEP).values()) for m in (method, other)))
