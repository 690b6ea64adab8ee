"""Whether a run is still worth its time: nothing infinite, nothing exploding, and outputs that differ."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tacit.training.pulse import HUGE, Reading

_STREAK = 20  # steps with a huge gradient, one after the other: single spikes pass by themselves
_GROWTH = 100.0  # times by which all parameters together grow ...
_SPAN = 100  # ... within so many steps; at LARS' usual rates they cannot even double
_STD = 0.05  # of unit-length vectors, times sqrt(D): their angles to each other are about 4 degrees
_RANK = 1.5  # features nearly on one line
_OF_BEST = 0.25  # of the best value so far: some encoders are born with nearly equal features
_LOOKS = 3  # in a row ...
_LASTING = 50  # ... over at least so many steps: BatchNorm's running statistics need some 30 to follow


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was seen, with numbers and since when; what to change; whether nothing after it can be good."""

    kind: str
    seen: str
    mend: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the mend depends on: peak rate, clipping, batch, and the loss's temperature if it has one."""

    lr: float
    clip: float | None
    batch_size: int
    temperature: float | None = None


class Guard:
    """Reads what was measured and says what is wrong; it measures nothing itself.

    A collapse is told by the std of what the loss sees, the outputs of the heads or, without heads, the
    encoder's features, and by the effective rank of the features. Not by the std of features below a
    head: a projector can be constant while they differ, and with BatchNorm it can tell apart features
    whose angles are tiny (a vision transformer's std falls from 0.57 to 0.0034 while its projector
    keeps 0.19). Thresholds are our choice, between what was measured on the packaged data: the
    outputs of the five contrastive methods stay above 0.18 and the rank above 19, over
    tacit/convnet, timm/resnet18 and timm/vit_tiny; a loss without negatives takes the output's std
    below 0.05 in 20 to 750 steps, and without a head the rank to 1.

    state: numbers for the checkpoint, so that a resumed run is watched as if it had not stopped.
    """

    def __init__(self, facts: Facts, state: Mapping[str, float] | None = None) -> None:
        self.facts = facts
        self.state = dict(state or {})
        self._norms: deque[tuple[int, float]] = deque()

    @property
    def healthy(self) -> bool:
        """Whether the last look found nothing suspicious."""
        return not self.state.get("looks")

    @property
    def fresh(self) -> bool:
        """Whether nothing was seen yet."""
        return not self.state

    def begin(self, values: Mapping[str, float]) -> None:
        """Take what the fresh network shows, its health or its outputs, as the first measure."""
        for name, value in values.items():
            self.state[f"best {name}"] = value if math.isfinite(value) else 0.0

    def numbers(
        self, done: int, reading: Reading, loss: float, parameters: float, accumulate: int = 1
    ) -> Trouble | None:
        """What is not finite, or explodes. loss: mean since the last reading; parameters: norm of all."""
        if reading.bad_losses or not math.isfinite(loss):
            first = done - max(1, -(-reading.bad_losses // accumulate)) + 1
            what = f"the loss is {loss} since step {first}"
        elif reading.bad_gradients:
            what = f"the gradient is not finite since step {done - reading.bad_gradients + 1}"
        else:
            self.state.setdefault("loss", loss)
            return self._exploding(done, reading, parameters)
        return Trouble("not finite", what, self._slower(), fatal=True)

    def spoilt(self, done: int) -> Trouble:
        """A state that cannot be saved."""
        what = f"parameters are not finite after step {done}"
        return Trouble("not finite", what, self._slower(), fatal=True)

    def _exploding(self, done: int, reading: Reading, parameters: float) -> Trouble | None:
        if reading.streak >= _STREAK:
            return Trouble(
                "exploding",
                f"the gradient explodes: its norm is {reading.gradient:.2g}, more than {HUGE:.0e} times "
                f"that of the first steps ({reading.usual:.2g}), since step {done - reading.streak + 1}",
                self._slower(),
            )
        if found := self.grown(done, parameters):
            step, before = found
            return Trouble(
                "exploding",
                f"the parameters explode: their norm grew from {before:.3g} to {parameters:.3g} since "
                f"step {step}",
                self._slower(),
            )
        return None

    def grown(self, done: int, parameters: float) -> tuple[int, float] | None:
        """The step since which the parameters have grown too much, and their norm then; or None."""
        while self._norms and self._norms[0][0] < done - _SPAN:
            self._norms.popleft()
        self._norms.append((done, parameters))
        step, before = min(self._norms, key=lambda seen: seen[1])
        huge = parameters > _GROWTH * before and done >= step + _STREAK
        return (step, before) if huge else None

    def collapse(
        self, done: int, health: Mapping[str, float], outputs: Mapping[str, float], loss: float
    ) -> Trouble | None:
        """Outputs that no longer tell images apart, if that lasts.

        health: `effective_rank` and `feature_std` of the encoder. outputs: std by name of head.
        """
        found = [self._low("effective_rank", health["effective_rank"], _RANK, "the encoder's features")]
        if outputs:
            found += [self._low(n, v, _STD, f"the outputs of '{n}'") for n, v in outputs.items()]
        else:
            found.append(self._low("feature_std", health["feature_std"], _STD, "the encoder's features"))
        seen = [text for text in found if text]
        if not seen:
            self.state |= {"looks": 0}
            return None
        if self.healthy:
            self.state["since"] = done
        self.state["looks"] = self.state.get("looks", 0) + 1
        since = int(self.state["since"])
        if self.state["looks"] < _LOOKS or done - since < _LASTING:
            return None
        return Trouble("collapse", f"collapse: since step {since} {'; '.join(seen)}", self._apart(loss))

    def _low(self, name: str, value: float, bound: float, what: str) -> str:
        """What is wrong with a value that should be high, or nothing."""
        if not math.isfinite(value):
            return f"{what} are not finite"
        best = max(value, self.state.get(f"best {name}", 0.0))
        self.state[f"best {name}"] = best
        if value >= min(bound, _OF_BEST * best) and best > 0:
            return ""
        if bound == _RANK:
            return f"{what} lie on one line (effective rank {value:.2g}, {best:.3g} at best)"
        return f"{what} are nearly the same for all images (std {value:.2g}, {best:.2g} at best)"

    def _slower(self) -> str:
        clip = (
            " or --clip 1" if self.facts.clip is None else f" or a smaller --clip (now {self.facts.clip:g})"
        )
        return f"pass a lower --lr (its peak is {self.facts.lr:.2g}){clip}"

    def _apart(self, loss: float) -> str:
        """What keeps outputs apart: it depends on whether the loss is content with a constant."""
        facts = self.facts
        if facts.temperature is not None:
            return (
                f"the negatives do not keep them apart: pass a lower --lr (its peak is {facts.lr:.2g}), "
                f"another --method.temperature (now {facts.temperature:g}) or a larger --batch-size "
                f"(now {facts.batch_size})"
            )
        if loss < self.state.get("loss", loss):
            return (
                f"a constant output satisfies this loss (it fell from {self.state['loss']:.3g} to "
                f"{loss:.3g}): give it negatives, or a predictor with a stop-gradient on the other "
                "view, or a term that keeps the variance"
            )
        return f"the loss did not fall meanwhile ({loss:.3g} now): {self._slower()}"
