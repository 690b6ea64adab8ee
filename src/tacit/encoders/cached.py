"""Which pretrained encoders are at hand without a download."""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def cached_encoders(cache: Path | None = None) -> list[str]:
    """Spec strings of timm models whose weights lie in the hub's cache, in alphabetical order.

    cache: the hub's cache folder; default: where its client keeps it. Nothing is opened but folders.
    """
    from timm.models import is_model

    if cache is None:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = Path(HF_HUB_CACHE)
    found = []
    for folder in sorted(cache.glob("models--timm--*")):
        name = folder.name.removeprefix("models--timm--")
        whole = any(
            (snapshot / weights).is_file() for snapshot in folder.glob("snapshots/*") for weights in _WEIGHTS
        )
        if whole and "." in name and is_model(name.partition(".")[0]):
            found.append(f"timm/{name}")
    return found
