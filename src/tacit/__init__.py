"""tacit: learn from much data and few labels.

The public names are imported when they are first used, so that `import tacit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tacit.batch import Batch, Samples, Step
    from tacit.battle.curve import curve
    from tacit.claims.run import claim
    from tacit.data.open import open_source
    from tacit.data.source import Sample, Source, Spec
    from tacit.encoders.card import attach_card
    from tacit.encoders.zoo import build_encoder, load_encoder
    from tacit.errors import TacitError, UsageError
    from tacit.evaluation.embed import embed
    from tacit.methods.base import Method
    from tacit.methods.recipe import Recipe
    from tacit.rng import Rng
    from tacit.tasks.predict import predict
    from tacit.tasks.probe import probe
    from tacit.training.fit import fit
    from tacit.training.run import Run

_HOME = {
    "Batch": "tacit.batch",
    "Samples": "tacit.batch",
    "Step": "tacit.batch",
    "open_source": "tacit.data.open",
    "Sample": "tacit.data.source",
    "Source": "tacit.data.source",
    "Spec": "tacit.data.source",
    "attach_card": "tacit.encoders.card",
    "build_encoder": "tacit.encoders.zoo",
    "load_encoder": "tacit.encoders.zoo",
    "TacitError": "tacit.errors",
    "UsageError": "tacit.errors",
    "claim": "tacit.claims.run",
    "curve": "tacit.battle.curve",
    "embed": "tacit.evaluation.embed",
    "probe": "tacit.tasks.probe",
    "Method": "tacit.methods.base",
    "Recipe": "tacit.methods.recipe",
    "Rng": "tacit.rng",
    "predict": "tacit.tasks.predict",
    "fit": "tacit.training.fit",
    "Run": "tacit.training.run",
}
__all__ = [
    "Batch",
    "Method",
    "Recipe",
    "Rng",
    "Run",
    "Sample",
    "Samples",
    "Source",
    "Spec",
    "Step",
    "TacitError",
    "UsageError",
    "attach_card",
    "build_encoder",
    "claim",
    "curve",
    "embed",
    "fit",
    "load_encoder",
    "open_source",
    "predict",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tacit' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
