"""Checkpoints: all a run needs to go on, read without executing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit.checks import check_number, check_type, check_whole, is_whole, needed, shortly, wrong
from tacit.errors import TacitError
from tacit.files import replacing
from tacit.untrusted import first_line, mapping, open_file

_FORMAT = 1
_MOST_STEPS = 2**53
_ALIKE = frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"})
"""Parts of an optimiser's state that have the parameter's shape; of others the size is known alone."""


@dataclass(slots=True)
class Checkpoint:
    """The state after `step` optimiser steps.

    probe: the best online probe until then. guard: what the guard has seen until then.
    """

    step: int
    method: dict[str, Any]
    optimizer: dict[str, Any]
    probe: float = float("-inf")
    guard: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it; the file appears whole or not at all.

        Raises:
            TacitError: it cannot be written.
        """
        state = {name: getattr(self, name) for name in self.__slots__}
        with replacing(path) as file:
            try:
                torch.save({"format": _FORMAT, **state}, file)
            except RuntimeError as error:
                # torch's writer hides a full disk behind an error of its own ("unexpected pos 832 vs 726")
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read it, onto the CPU.

        Raises:
            TacitError: the file is damaged or of another version.
        """
        try:
            _check_archive(path)
            state = mapping(torch.load(path, map_location="cpu", weights_only=True), "it")
        except Exception as error:
            # torch raises what pickle, zipfile and its own reader raise
            raise TacitError(f"the checkpoint {path} is damaged: {first_line(error)}") from None
        found = state.pop("format", None)
        if found != _FORMAT:
            raise TacitError(f"the checkpoint {path} has format {found}; this version reads {_FORMAT}")
        try:
            checkpoint = cls(**{f.name: needed(state, f.name) for f in fields(cls)})
            checkpoint.check()
        except ValueError as error:
            raise TacitError(f"the checkpoint {path} is damaged: {first_line(error)}") from None
        return checkpoint

    def check(self) -> None:
        """Refuse what no run saves.

        Raises:
            ValueError: names the field, what it is, and what it must be.
        """
        check_whole("step", self.step, 0, _MOST_STEPS)
        for name, value in mapping(self.method, "its method").items():
            _check_tensor(f"method.{name}", value)
            if not value.isfinite().all():
                raise ValueError(f"its method.{name} has values that are not finite")
        self._check_optimizer()
        plain = isinstance(self.probe, int | float) and not isinstance(self.probe, bool)
        if not plain or self.probe != self.probe:
            raise wrong("probe", self.probe, "a number")
        for name, value in mapping(self.guard, "its guard").items():
            check_number(f"guard.{name}", value, lambda number: True, "a finite number")

    def _check_optimizer(self) -> None:
        parts = mapping(self.optimizer, "its optimizer")
        groups, states = needed(parts, "param_groups"), needed(parts, "state")
        check_type("optimizer.param_groups", groups, list, "a list")
        check_type("optimizer.state", states, dict, "names and values")
        for group in groups:
            for name, value in mapping(group, "its optimizer.param_groups").items():
                _check_finite(f"optimizer.{name}", value)
        for number, state in states.items():
            for name, value in mapping(state, f"its optimizer.state[{number!r:.20}]").items():
                if not isinstance(value, Tensor):
                    _check_finite(f"optimizer.{name}", value)
                    continue
                _check_tensor(f"optimizer.{name}", value)
                if value.isnan().any():
                    raise ValueError(f"its optimizer.{name} has values that are not numbers")
                if name == "step" and not (value >= 0).all():
                    raise wrong("optimizer.step", value, "a number of at least 0")


_MEANS = frozenset({"fused", "foreach", "capturable", "differentiable", "maximize"})
"""Settings of an optimiser that say how it computes, or that no recipe changes."""


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any], *, rests: bool = False) -> None:
    """Put the state of a checkpoint that was checked into an optimiser.

    rests: whether some of the parameters may not have had a gradient yet.

    Raises:
        TacitError: it is that of another optimiser, or of parameters of other shapes.
    """
    try:
        _check_state(optimizer, state, rests)
        # settings that an older version did not have, and ways to compute, are those of this one
        groups = [
            {**own, **saved, **{name: own[name] for name in _MEANS & own.keys()}}
            for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True)
        ]
        optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise TacitError(f"the checkpoint does not fit the optimiser: {first_line(error)}") from None


def _check_state(optimizer: Optimizer, state: Mapping[str, Any], rests: bool) -> None:
    groups = state["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"it has {len(groups)} groups of parameters, and must have another number")
    for saved, own in zip(groups, optimizer.param_groups, strict=True):
        numbers = saved.get("params")
        if not isinstance(numbers, list) or len(numbers) != len(own["params"]):
            raise ValueError("its groups have other numbers of parameters")
        for name, value in own.items():
            if name in saved and name not in _MEANS | {"params"} and not _alike(saved[name], value):
                raise wrong(f"optimizer.{name}", saved[name], f"as {shortly(value)}")
        if not all(map(is_whole, numbers)) or len(set(numbers)) < len(numbers):
            raise wrong("optimizer.params", numbers, "different whole numbers")
        states = [state["state"].get(number, {}) for number in numbers]
        _check_memory([(s, p) for s, p in zip(states, own["params"], strict=True) if s or not rests])


def _check_memory(states: Sequence[tuple[Mapping[str, Any], Tensor]]) -> None:
    """What is remembered of each parameter of a group: the same things of all, of fitting shapes."""
    kinds = {name: type(value) for name, value in states[0][0].items()} if states else {}
    for state, parameter in states:
        if {name: type(value) for name, value in state.items()} != kinds:
            raise ValueError(f"its optimizer.state has {shortly(list(state))}, and must have {list(kinds)}")
        for name, value in state.items():
            if isinstance(value, Tensor) and not _fits(name, value, parameter):
                found, shape = list(value.shape), list(parameter.shape)
                raise ValueError(f"its optimizer.{name} is {found}, and its parameter is {shape}")


def _check_archive(path: Path) -> None:
    """Refuse what is not torch's archive, or one that claims to hold more than the file does.

    Raises:
        OSError, ValueError, BadZipFile: says so.
    """
    with open_file(path) as file, ZipFile(file) as archive:
        entries, size = archive.infolist(), file.seek(0, 2)
    if any(entry.compress_type != ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, and torch's archives are not")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("it claims to hold more than its size")


def _check_finite(name: str, value: object) -> None:
    """Refuse a number that no float holds, if it is a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        check_number(name, value, lambda number: True, "a finite number")


def _check_tensor(name: str, value: object) -> None:
    """Refuse what is not a tensor whose values are all in the file."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        raise wrong(name, value, "a dense tensor")
    if value.is_quantized or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"its {name} claims to have more values than there are")


def _alike(saved: Any, own: Any) -> bool:
    """Whether a saved setting of an optimiser is of the kind that it has."""
    if isinstance(own, bool):
        return isinstance(saved, bool)
    if own is None:
        return saved is None or isinstance(saved, bool)
    if isinstance(own, str):
        return isinstance(saved, str) and saved == own
    if isinstance(own, list | tuple):
        together = isinstance(saved, list | tuple) and len(saved) == len(own)
        return together and all(map(_alike, saved, own))
    if isinstance(own, int | float):
        return isinstance(saved, int | float) and not isinstance(saved, bool)
    return isinstance(saved, type(own))


def _fits(name: str, value: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor can be an optimiser's memory of a parameter."""
    if name in _ALIKE:
        return value.shape == parameter.shape and value.is_floating_point()
    return value.numel() <= max(parameter.numel(), 1)
