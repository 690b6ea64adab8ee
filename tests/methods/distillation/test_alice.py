"""Alice: the losses by hand, what gets gradient, what moves, and that it can be repeated."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from patients import Patients
from small_alice import LATER, PATCH, RNG, SMALL, batch_of, make, rows_of
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Batch, Samples, Step
from tacit.encoders.card import attach_card
from tacit.encoders.unet import UNet3d
from tacit.losses.distillation import distillation
from tacit.methods.distillation.alice import alice as module
from tacit.methods.distillation.alice.alice import Alice, Views, teacher_momentum
from tacit.rng import Rng, seeded


@pytest.fixture(scope="module")
def source() -> Patients:
    return Patients(5)


@pytest.fixture
def ready(source):
    def build(**options) -> tuple[Alice, Batch]:
        method = make(**options)
        method.prepare(source)
        method.begin(source, progress=False)
        return method, batch_of(method, source)

    return build


def grads(method: Alice, loss: Tensor) -> dict[str, Tensor | None]:
    found = dict(method.named_parameters())
    trained = {name: p for name, p in found.items() if p.requires_grad}
    values = torch.autograd.grad(loss, list(trained.values()), retain_graph=True, allow_unused=True)
    return dict(zip(trained, values, strict=True))


def moved(found: dict[str, Tensor | None]) -> set[str]:
    return {name for name, grad in found.items() if grad is not None and grad.abs().sum() > 0}


def starting(names: set[str], *prefixes: str) -> set[str]:
    return {name for name in names if name.startswith(prefixes)}


@pytest.mark.parametrize("source_of_keys", ["decoder", "encoder"])
def test_the_three_losses_by_hand(ready, source_of_keys):
    method, batch = ready(teacher_source=source_of_keys, inter=2.0, intra=3.0, dropout=0.0)
    with torch.no_grad():
        method.centre_cls.normal_(0, 0.1, generator=Rng.of(1).torch())
        method.centre_token.normal_(0, 0.1, generator=Rng.of(2).torch())
        for p in method.teacher.parameters():
            p.mul_(1.1)
    views = method.views(batch, RNG, LATER)

    def said(encoder: nn.Module, head: nn.Module, x: Tensor):
        maps = encoder.forward_pyramid(x)
        enc, dec = (m.flatten(2).mT for m in maps[:2])
        return head(maps[0].mean((2, 3, 4)), enc, dec), maps[-1]

    s, finest = said(method.encoder, method.head, views.masked)
    t, _ = said(method.teacher, method.teacher_head, views.taught)
    tau = {"teacher_temperature": 0.008 + 0.002 * 2 / 29, "student_temperature": 0.1}
    inter = [
        distillation(t.cls[a], s.cls[b], method.centre_cls[0], **tau)
        for a, b in [(i, i - 3) for i in range(6)]
    ]
    told = method.casa(s.enc, s.dec)
    wanted = method.casa(s.enc, t.enc if source_of_keys == "encoder" else t.dec)
    intra = distillation(wanted, told, method.centre_token, **tau).mean()
    rec = method.reconstruct(finest)
    found = method.losses(views, LATER)
    assert found["inter"].item() == pytest.approx(2 * sum(x.item() for x in inter) / 6, rel=1e-4)
    assert found["intra"].item() == pytest.approx(3 * intra.item(), rel=1e-4)
    assert found["reconstruction"].item() == pytest.approx(
        5 * (rec - views.clean).square().mean().item(), rel=1e-5
    )


def test_reconstruction_is_half_of_ten_squares():
    method = make()
    flat = Views(*(torch.zeros(2, 1, *PATCH) for _ in range(3)), torch.zeros(2, 1, *PATCH, dtype=torch.bool))
    found = method._reconstruction(torch.full((2, 1, *PATCH), 0.5), flat)
    assert 10 * found.item() == 1.25
    method.masked_only = True
    flat.hidden[:, :, :4] = True
    flat.clean[:, :, 4:] = 9.0
    assert method._reconstruction(torch.full((2, 1, *PATCH), 0.5), flat).item() == 0.125


def test_exchanging_queries_and_keys_changes_no_loss(ready):
    method, batch = ready(dropout=0.0)
    views = method.views(batch, RNG, LATER)
    swapped = Views(*(x.roll(3, 0) for x in views))
    for name, value in method.losses(views, LATER).items():
        assert method.losses(swapped, LATER)[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_who_gets_gradient_from_what(ready):
    method, batch = ready()
    losses = method.losses(method.views(batch, RNG, LATER), LATER)
    inter, intra, rec = (moved(grads(method, losses[k])) for k in ("inter", "intra", "reconstruction"))
    assert not starting(inter | intra | rec, "teacher", "teacher_head")
    assert not starting(inter | rec, "casa")
    assert starting(intra, "casa") == {f"casa.{n}" for n, _ in method.casa.named_parameters()}
    assert not starting(rec, "head")
    assert {"head.last_cls", "head.shared.0.weight"} <= inter
    assert "head.last_token" not in inter
    assert {"head.last_token", "head.adapt_enc.weight", "head.adapt_dec.weight"} <= intra
    assert "head.last_cls" not in intra
    assert starting(rec, "reconstruct") == {"reconstruct.weight", "reconstruct.bias"}
    assert not starting(inter | intra, "reconstruct")
    assert all(starting(names, "encoder") for names in (inter, intra, rec))


def test_the_target_of_alignment_has_no_gradient(ready):
    """d L_intra / d teacher's tokens is 0, and CASA learns through S alone."""
    method, _ = ready(dropout=0.0)
    student, teacher = (
        type(method.head(*[torch.rand(2, 16)], torch.rand(2, 4, 16), torch.rand(2, 8, 8)))(
            *(
                torch.randn(2, *n, 16, generator=Rng.of(s).torch(), requires_grad=True)
                for n in ((), (4,), (8,))
            )
        )
        for s in (1, 2)
    )
    told, wanted = method._aligned(student, teacher)
    assert not wanted.requires_grad
    assert told.requires_grad
    torch.testing.assert_close(wanted, method.casa(student.enc, teacher.dec))
    same, _ = method._aligned(student, student)
    torch.testing.assert_close(same, method._aligned(student, student)[1])


@pytest.mark.parametrize("options", [{}, {"use_casa": False}, {"shared_last": True}, {"casa_ema": True}])
def test_last_layers_stay_in_the_first_epoch_and_no_parameter_is_left_out(ready, options):
    method, batch = ready(**options)
    for step, held in ((Step(3, 100, 0, 5), True), (LATER, False)):
        found = grads(method, sum(method.losses(method.views(batch, RNG, step), step).values()))
        assert all(g is not None for g in found.values())  # several processes want one for every parameter
        last = {name for name in found if "last" in name}
        assert last
        assert (not last & moved(found)) == held
        assert starting(moved(found), "head.shared")


def test_without_casa_tokens_of_the_encoders_are_compared(ready):
    method, batch = ready(use_casa=False)
    assert method.casa is None
    views = method.views(batch, RNG, LATER)
    found = method.losses(views, LATER)["intra"]
    enc = [
        head(m.mean((2, 3, 4)), m.flatten(2).mT, None).enc
        for head, m in (
            (method.head, method.encoder.forward_pyramid(views.masked)[0]),
            (method.teacher_head, method.teacher.forward_pyramid(views.clean)[0]),
        )
    ]
    tau = module.teacher_temperature_at(2, 0.008, 0.01, 30)
    expected = distillation(enc[1], enc[0], torch.zeros(16), teacher_temperature=tau).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_teacher_and_centres_follow_after_the_step(ready):
    method, batch = ready(casa_ema=True, momentum=0.75)
    start = Step(0, 100, 0, 5)
    before = {n: p.clone() for n, p in method.named_parameters() if n.startswith("teacher")}
    views = method.views(batch, RNG, start)
    method.losses(views, start)
    with torch.no_grad():
        for part in (method.encoder, method.head, method.casa):
            for p in part.parameters():
                p.add_(1.0)
    assert not method.centre_cls.any()
    method.after_step(start)
    for name, p in method.named_parameters():
        if name.startswith("teacher"):
            torch.testing.assert_close(p, before[name] + 0.25, atol=1e-5, rtol=1e-5)
    other, _ = ready()
    maps = other.teacher.forward_pyramid(views.taught)
    logits = other.teacher_head(maps[0].mean((2, 3, 4)), maps[0].flatten(2).mT, None).cls
    torch.testing.assert_close(method.centre_cls[0], 0.1 * logits.mean(0), atol=1e-5, rtol=1e-4)
    assert method.centre_token.shape == (1, 1, 16)
    assert method.centre_token.abs().max() > 1e-3


def test_centres_of_parts_are_those_of_the_batch(ready):
    whole, batch = ready(dropout=0.0)
    parts, _ = ready(dropout=0.0)
    whole.losses(whole.views(batch, RNG, LATER), LATER)
    for rows in (slice(0, 1), slice(1, 3)):
        part = rows_of(batch, rows)
        parts.losses(parts.views(part, RNG, LATER), LATER)
    for method in (whole, parts):
        method.after_step(LATER)
    torch.testing.assert_close(parts.centre_cls, whole.centre_cls, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(parts.centre_token, whole.centre_token, atol=1e-6, rtol=1e-5)


def test_the_momentum_rises_from_its_start_to_one():
    found = [teacher_momentum(0.996, Step(i, 200, 0, 1)) for i in range(201)]
    assert found[0] == pytest.approx(0.996)
    assert found[100] == pytest.approx(0.998)
    assert found[200] == 1.0
    assert found == sorted(found)


def test_the_teacher_has_no_dropout():
    with seeded(Rng.of(0)("test")):
        encoder = attach_card(UNet3d(1, width=4, depth=2, dropout=0.5), channels=1, patch=PATCH)
        method = Alice(encoder, **SMALL).train()
    x = torch.rand(2, 1, *PATCH)
    assert torch.equal(method.teacher.forward_pyramid(x)[0], method.teacher.forward_pyramid(x)[0])
    assert not torch.equal(method.encoder.forward_pyramid(x)[0], method.encoder.forward_pyramid(x)[0])


class PaperShapes(nn.Module):
    """An encoder with the widths and strides of the paper's network."""

    num_features, pyramid_features, divisor = 384, (384, 192, 96, 48, 48), 16

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv3d(1, w, 1) for w in self.pyramid_features)

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        return [m(F.avg_pool3d(x, k)) for m, k in zip(self.maps, (16, 8, 4, 2, 1), strict=True)]


def test_the_papers_shapes():
    encoder = attach_card(PaperShapes(), channels=1, patch=(64, 64, 64))
    method = Alice(encoder, miner="random")
    crops = torch.rand(2, 1, 64, 64, 64, generator=Rng.of(0).torch())
    batch = Batch(Samples(crops[:1], torch.tensor([7]), extra={"key": crops[1:]}))
    views = method.views(batch, RNG, LATER)
    assert views.hidden[:, 0, ::16, ::16, 0].flatten(1).sum(1).tolist() == [12, 12]
    with torch.no_grad():
        told = module._run(method.encoder, method.head, views.masked)
        assert [tuple(x.shape) for x in told.logits] == [(2, 512), (2, 64, 512), (2, 512, 512)]
        assert method.reconstruct(told.finest).shape == (2, 1, 64, 64, 64)
        s, t = method._aligned(told.logits, told.logits)
        assert s.shape == t.shape == (2, 64, 512)
        losses = method.losses(views, LATER)
    assert losses["inter"] < 2 * math.log(512)


@pytest.mark.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
def test_a_run_can_be_repeated_and_resumed(source, device):
    """The same seed gives the same places, masks and losses, also when another method's state goes on."""

    def trained(method: Alice, steps: range, optimizer: torch.optim.Optimizer) -> list[float]:
        found = []
        for k in steps:
            step = Step(k, 6, k // 3, 2)
            batch = batch_of(method, source, step=k).to(device)
            torch.manual_seed(k)
            total = sum(method.losses(method.views(batch, Rng.of(0)("views", k), step), step).values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            method.after_step(step)
            found.append(total.item())
        return found

    def start(*, fresh: bool = True) -> tuple[Alice, torch.optim.Optimizer]:
        method = make(miner="anatomy", miner_steps=2, casa_ema=True)
        method.prepare(source)
        if fresh:
            method.begin(source, progress=False)
        method.to(device)
        return method, torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 1e-3)

    whole, optimizer = start()
    history = trained(whole, range(6), optimizer)
    first, optimizer = start()
    assert trained(first, range(3), optimizer) == history[:3]
    second, resumed = start(fresh=False)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    resumed.load_state_dict(optimizer.state_dict())
    assert trained(second, range(3, 6), resumed) == history[3:]
    assert torch.equal(second.miner.weights, whole.miner.weights)


def test_the_loss_falls_when_one_batch_is_learned(ready):
    method, batch = ready(prototypes=8, teacher_temperature=0.04, warm_teacher_temperature=0.04)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 3e-3)
    history = []
    for k in range(25):
        step = Step(k, 25, 1, 2)
        losses = method.losses(method.views(batch, RNG, step), step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()  # teacher and centres stand still, so that the task does too
        history.append({name: x.item() for name, x in losses.items()})
    assert history[-1]["reconstruction"] < 0.5 * history[0]["reconstruction"]
    assert history[-1]["inter"] < 0.7 * history[0]["inter"]
