"""`tacit fit METHOD --data WHERE`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from tacit.cli.arguments import Parser, add_option, add_options, help_of
from tacit.cli.configuration import Configuration, checked_config, read_configuration
from tacit.data.form import form_class
from tacit.errors import UsageError
from tacit.methods.base import Method
from tacit.methods.registry import all_methods, method_class
from tacit.tasks.base import Labels
from tacit.tasks.registry import all_tasks, task_of
from tacit.training.fit import fit
from tacit.training.options import CONCERNS, Seeing, Start
from tacit.training.run import is_main_process
from tacit.training.summary import Summary
from tacit.training.views import takes_views

_MOST, _TEN = "most used", 10
_NEEDED = (
    *("data", "labels", "masks", "values", "column", "out", "labels_per_class", "labelled", "encoder"),
    *("epochs", "batch_size", "size", "patch", "views", "preset", "pretrain", "device", "resume"),
)
_TITLES = {
    "reading": "data and labels",
    "seeing": "how the encoder sees the data",
    "labels": "whose labels are learned from",
    "start": "what learning begins with",
    "viewing": "views",
    "changes": "recipe",
    "machine": "machine",
    "care": "run folder",
}
_USAGE = "--data WHERE [--encoder SPEC] [--out DIR] [--config FILE] [--method.OPTION VALUE] ..."


def run(argv: Sequence[str]) -> None:
    """Learn an encoder and say where it is."""
    slug, rest, configuration = _method(list(argv))
    if slug is None:
        if "-h" in rest or "--help" in rest:
            _parser("METHOD").print_help()
            return
        raise UsageError(f"which method? tacit fit METHOD --data WHERE; methods: {', '.join(all_methods())}")
    if configuration is not None and configuration.method not in (None, slug):
        raise UsageError(f"the configuration is for the method '{configuration.method}', not '{slug}'")
    parsed = _parser(slug).parse(rest)
    arguments = _arguments(parsed)
    if parsed.method.name != slug:
        raise UsageError(f"the configuration is for the method '{parsed.method.name}', not '{slug}'")
    if parsed.data is None:
        raise UsageError("which data? pass --data FOLDER (or a .npz, hf:NAME, digits, mnist5k)")
    if configuration is not None and not parsed.quiet and (places := configuration.places(arguments)):
        print(f"from {configuration.path}: {places}", file=sys.stderr)
    result = fit(**arguments)
    if not is_main_process():
        return
    print(f"encoder: {result.folder / 'encoder.safetensors'}")
    print(f"report:  {result.folder / 'report.html'}")
    learns = method_class(slug)
    summary = Summary.load(result.folder)
    if summary is not None and summary.above is not None:
        print(summary.lines()[-1])
        return
    if learns.learns is not None:
        written = task_of(learns.learns).written
        print(f"next:    tacit predict {result.quoted} --data WHERE --out {written}")
        return
    if hasattr(result.encoder(), "forward_pyramid"):
        tuned = f"tacit fit supervised-segmentation --data MASKED --encoder run:{result.quoted}"
        print(f"next:    {tuned}")
    else:
        print(f"next:    tacit probe {result.quoted} --data LABELLED")
    print(f"         tacit embed {result.quoted} --data WHERE --out FILE.parquet")


def _method(argv: list[str]) -> tuple[str | None, list[str], Configuration | None]:
    """The method's slug, from the first word or the configuration, the other words, and the configuration.

    A run that is resumed is its own configuration.
    """
    slug = argv.pop(0) if argv and not argv[0].startswith("-") else None
    config = _value(argv, "--config")
    if config is None and any(word in ("--resume", "--resume=true") for word in argv):
        config = _resumed(_value(argv, "--out"), needed=slug is None)
        argv = ["--config", config, *argv] if config else argv
    if config is None:
        return slug, argv, None
    configuration = read_configuration(config, slug)
    if slug is None and configuration.method is None:
        raise UsageError(f"'{config}' names no method: it needs 'method: {{name: dcl}}', or write it first")
    return slug or configuration.method, argv, configuration


def _resumed(folder: str | None, *, needed: bool) -> str | None:
    """The settings of the run to go on with; None if there is none yet and the words say enough."""
    config = None if folder is None else Path(folder) / "run.yaml"
    if config is not None and config.is_file():
        return str(config)
    if not needed:
        return None
    if folder is None:
        raise UsageError("which run? tacit fit --resume --out DIR")
    raise UsageError(f"no run to resume at '{folder}'; start it with tacit fit METHOD --data WHERE")


def _value(argv: Sequence[str], option: str) -> str | None:
    for word, following in zip_longest(argv, argv[1:]):
        if word == option:
            return following
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return None


def _parser(slug: str) -> Parser:
    parser = Parser(f"fit {slug}", fit, _USAGE)
    parser.add_argument(
        "--config", action=checked_config(slug), help="YAML file with settings, such as a run's run.yaml"
    )
    groups = {title: parser.add_argument_group(title) for title in (_MOST, *_TITLES.values())}
    hidden = set() if slug == "METHOD" else _foreign(method_class(slug))
    add_option(groups[_MOST], "data", str | None, help_of(fit, "data"))
    add_options(
        parser,
        fit,
        skip=("method", "data", "options"),
        notes=_defaults(slug),
        hidden=hidden,
        place=lambda name: groups[_place(name, hidden)],
    )
    if slug != "METHOD":
        parser.add_class_arguments(method_class(slug), "method", skip={"encoder"})
        parser.add_argument(
            "--method.name", type=str, default=slug, help="slug of the method; the first word says it"
        )
    return parser


def _place(name: str, hidden: Collection[str]) -> str:
    """The heading of an option: the first ones that most people need have one of their own."""
    first = [word for word in _NEEDED if word not in hidden][:_TEN]
    if name in first:
        return _MOST
    return _TITLES[next(part for part, kind in CONCERNS.items() if name in {f.name for f in fields(kind)})]


def _foreign(learns: type[Method]) -> set[str]:
    """Words of `fit` that mean nothing to a method: of other kinds of data or labels."""
    forms = [form_class(kind) for kind in learns.kinds()]
    foreign = {f.name for f in fields(Seeing)} - {word for form in forms for word in form.words}
    if learns.beside is None:
        foreign |= {"images"}
    if not takes_views(learns):
        foreign |= {"views", "recipe"}
    if learns.learns is None:
        labels = {f.name for f in fields(Labels)} | {"mu", "groups"}
        first = {f.name for f in fields(Start) if f.name.startswith("pretrain")}
        return foreign | labels | first | {"masks", "values", "column"}
    own = task_of(learns.learns)
    for task in all_tasks().values():
        foreign |= {word for word in (task.amount, *task.words) if word not in (own.amount, *own.words)}
    return foreign | ({"preset"} if own.dense else set())


def _defaults(slug: str) -> dict[str, str]:
    """What an option of the recipe is for this method where it is not given."""
    if slug == "METHOD":
        return {}
    learns = method_class(slug)
    notes = {f.name: f" ({slug}: {getattr(learns.recipe, f.name)})" for f in fields(learns.recipe)}
    encoders = ", ".join(learns.encoder_for(kind) for kind in learns.kinds())
    return {"encoder": f" ({slug}: {encoders})", **notes}


def _arguments(parsed: Namespace) -> dict[str, Any]:
    """The words as `fit` takes them."""
    plain = parsed.as_dict()
    plain.pop("config", None)
    options = plain.pop("method")
    return {**plain, "method": options.pop("name"), "options": options}
