"""`report.html`: one page about a run, from the files of its folder alone."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from tacit.errors import TacitError
from tacit.files import write_atomically
from tacit.report.files import Rows, check_settings, read_rows
from tacit.untrusted import first_line, read_yaml

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td {{ padding: .1rem 1rem .1rem 0; vertical-align: top }}
td:first-child {{ color: #666 }} svg {{ max-width: 100%; height: auto }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
{figure}
<h2>Result</h2>
{last}
<h2>Settings</h2>
{settings}
</body></html>
"""
_PANELS = 60
_NOT_PLOTTED = ("step", "epoch", "lr", "samples_per_second")


def write_report(folder: Path) -> Path:
    """Write the page of a run folder, from its `run.yaml` and `metrics.csv`. Reading it needs no network.

    Raises:
        TacitError: one of them is damaged, or the page cannot be written.
    """
    settings, rows = _settings(folder / "run.yaml"), read_rows(folder / "metrics.csv")
    record = settings.pop("record", {})
    data, method = record.get("data", {}), settings.pop("method", {})
    page = _PAGE.format(
        title=html.escape(f"{method.get('name', 'run')} on {settings.get('data', 'data')}"),
        summary=html.escape(_summary(data, record.get("labels"))),
        figure=_curves(rows),
        last=_table({name: value for name, value in rows.cells[-1].items() if value} if rows.cells else {}),
        settings=_table({**{f"method.{k}": v for k, v in method.items()}, **settings, **_flat(record)}),
    )
    target = folder / "report.html"
    write_atomically(target, page)
    return target


def _settings(path: Path) -> dict[str, Any]:
    try:
        return check_settings(read_yaml(path))
    except OSError as error:
        raise TacitError(f"cannot read {path}: {first_line(error)}") from None
    except ValueError as error:
        raise TacitError(f"{path} is damaged: {first_line(error)}") from None


def _summary(data: dict[str, Any], labels: dict[str, Any] | None) -> str:
    skipped = f"{data.get('skipped', 0):,} files skipped"
    if labels is None:
        known = f"{data.get('labelled', 0):,} of them with a label (for watching only)"
        return f"{data.get('samples', 0):,} samples, {known}, {skipped}."
    learned, held_out = (sum(labels.get(name, {}).values()) for name in ("learned", "held_out"))
    return (
        f"{data.get('samples', 0):,} samples, {learned:,} of them with a label that is learned from, and "
        f"{held_out:,} labels held out for validation and calibration; {skipped}."
    )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _table(values: dict[str, Any]) -> str:
    rows = (
        f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _curves(rows: Rows) -> str:
    """One small panel per column of the metrics, as inline SVG."""
    from matplotlib.figure import Figure

    points = {name: rows.points(name) for name in rows.columns if name not in _NOT_PLOTTED}
    names = [name for name, found in points.items() if found][:_PANELS]
    if not names:
        return ""
    high = -(-len(names) // 3)
    figure = Figure(figsize=(10, 2.4 * high), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(high, 3, i + 1)
        axes.plot(*zip(*points[name], strict=True), marker="." if len(points[name]) < 20 else "")
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
