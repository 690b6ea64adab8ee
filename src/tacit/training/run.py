"""The run folder: everything a run leaves behind, and how to open it again."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from tacit import __version__
from tacit.data.source import Skipped
from tacit.encoders.zoo import fill_module, load_encoder
from tacit.errors import TacitError, UsageError
from tacit.files import csv_line, write_atomically
from tacit.report.files import check_settings, read_rows
from tacit.untrusted import dump_yaml, first_line, read_yaml

_FILES = (
    "run.yaml",
    "metrics.csv",
    "encoder.safetensors",
    "encoder.json",
    "report.html",
    "summary.json",
    "skipped.csv",
)
_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder. `Run(path).encoder()` loads what it has learned."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def settings_file(self) -> Path:
        """All arguments of the run, and under `record` what it ran on."""
        return self.folder / "run.yaml"

    @property
    def metrics_file(self) -> Path:
        """Losses, probes and throughput by step."""
        return self.folder / "metrics.csv"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best online probe; only where there are labels."""
        return self.folder / "checkpoints" / "best.pt"

    @property
    def good(self) -> Path:
        """The checkpoint before the newest; only while the newest is not known to be good."""
        return self.folder / "checkpoints" / "good.pt"

    @property
    def quoted(self) -> str:
        """The folder as it can be pasted into a shell."""
        return shlex.quote(str(self.folder))

    def resuming(self, *words: str) -> str:
        """The command that goes on with it. words: more options.

        A method that is not on the list must be named, because no file may do that.
        """
        try:
            method = str(self.settings().get("method", {}).get("name"))
        except TacitError:
            method = ""
        named = [shlex.quote(method)] if ":" in method else []
        return " ".join(["tacit fit", *named, "--resume", *words, "--out", self.quoted])

    @property
    def exists(self) -> bool:
        """Whether a run's settings were written here."""
        return self.settings_file.is_file()

    @property
    def begun(self) -> bool:
        """Whether there is something to lose: a checkpoint or an encoder."""
        return self.last.is_file() or self.finished

    @property
    def finished(self) -> bool:
        """Whether its encoder was written."""
        return (self.folder / "encoder.json").is_file()

    def settings(self) -> dict[str, Any]:
        """The contents of `run.yaml`.

        Raises:
            UsageError: no run here.
            TacitError: the file is damaged.
        """
        if not self.exists:
            raise UsageError(f"no run at '{self.folder}': run.yaml is missing")
        try:
            return check_settings(read_yaml(self.settings_file))
        except OSError as error:
            raise TacitError(f"cannot read {self.settings_file}: {first_line(error)}") from None
        except ValueError as error:
            raise TacitError(f"{self.settings_file} is damaged: {first_line(error)}") from None

    def encoder(self, module: nn.Module | None = None) -> nn.Module:
        """What the run has learned, in eval mode.

        module: one of your own, built as the one that learned was; it gets the weights, and is returned.

        Raises:
            UsageError: the run learned into a module of your own, and none is given.
            TacitError: weights that are damaged or do not fit.
        """
        return load_encoder(self.folder) if module is None else fill_module(module, self.folder)

    def metrics(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv`.

        Raises:
            TacitError: it is damaged.
        """
        return read_rows(self.metrics_file).cells

    def sweep(self) -> None:
        """Remove what a killed process left half-written: hidden files beside those they were to be."""
        names = (*(path.name for path in (self.last, self.good, self.best)), *_FILES)
        for folder in (self.folder, self.last.parent):
            for name in names:
                for path in folder.glob(f".{name}.*"):
                    path.unlink(missing_ok=True)

    def write_settings(self, arguments: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Write `run.yaml`; `tacit fit --config` takes it back."""
        record = {**record, "versions": versions()}
        write_atomically(self.settings_file, dump_yaml({**arguments, "record": record}))

    def write_skipped(self, skipped: Sequence[Skipped]) -> None:
        """Write `skipped.csv` if files had to be left out."""
        if not skipped:
            return
        lines = map(csv_line, [Skipped._fields, *skipped])
        write_atomically(self.folder / "skipped.csv", "".join(lines))


def is_main_process() -> bool:
    """Whether this process writes and talks. Lightning starts the others by calling the program again."""
    return getattr(rank_zero_only, "rank", 0) == 0


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "tacit": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
