"""All methods by slug, read from their files without importing any of them until one is wanted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tacit.errors import TacitError, UsageError, unknown

if TYPE_CHECKING:
    from tacit.methods.base import Method

ENTRY_POINTS = "tacit.methods"
_CODE = re.compile(r"\w[\w.]*:\w+")
_HERE = Path(__file__).parent
_SAID = ("slug", "title", "paper", "modality", "learns", "beside", "baseline")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list of methods. `where` is `module:Class`, `family` the folder of its file."""

    where: str
    family: str
    title: str = ""
    paper: str = ""
    modality: str | tuple[str, ...] = "image"
    learns: str | None = None
    beside: str | None = None
    baseline: bool = False

    @property
    def modalities(self) -> tuple[str, ...]:
        """Kinds of data that it learns from."""
        return (self.modality,) if isinstance(self.modality, str) else self.modality

    @property
    def learns_from(self) -> str:
        """In a word: unlabelled, both or labels."""
        if self.learns is None:
            return "unlabelled"
        return "labels" if self.baseline else "both"


@cache
def own_methods() -> Mapping[str, Entry]:
    """Ours by slug: every class below a folder of this one that has the literal `slug`."""
    found = {}
    for path in sorted(_HERE.glob("*/**/*.py")):
        if "\n    slug = " not in path.read_text(encoding="utf-8"):
            continue
        for name, node in _classes(path).items():
            if "slug" in _literals(node):
                said, inside = _said(path, name), path.relative_to(_HERE)
                where = ".".join(("tacit", "methods", *inside.with_suffix("").parts))
                slug = said.pop("slug")
                found[slug] = Entry(f"{where}:{name}", inside.parts[0], **said)
    return MappingProxyType(found)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _classes(path: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _parsed(path).body if isinstance(node, ast.ClassDef)}


def _said(path: Path, name: str) -> dict[str, Any]:
    """What a class says in literals, or else the classes that it is made of."""
    node = _classes(path)[name]
    said: dict[str, Any] = {}
    for base in reversed([base.id for base in node.bases if isinstance(base, ast.Name)]):
        for place in _places(path, base):
            said |= _said(place, base)
    return said | _literals(node)


def _places(path: Path, name: str) -> Iterator[Path]:
    """The file below this folder in which a class is written whose name is known in `path`, if any."""
    if name in _classes(path):
        yield path
        return
    for node in _parsed(path).body:
        if not isinstance(node, ast.ImportFrom) or name not in [alias.name for alias in node.names]:
            continue
        words = (node.module or "").split(".")
        if words[:2] == ["tacit", "methods"]:
            yield _HERE.joinpath(*words[2:]).with_suffix(".py")


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for line in node.body:
        if not isinstance(line, ast.Assign | ast.AnnAssign) or line.value is None:
            continue
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        names = [target.id for target in targets if isinstance(target, ast.Name) and target.id in _SAID]
        said |= {name: ast.literal_eval(line.value) for name in names}
    return said


def baseline_of(method: type[Method], kind: str) -> str | None:
    """Slug of the method that learns the same kind of labels, of this kind of data, from them alone."""
    return None if method.learns is None else baseline_for(kind, method.learns)


def baseline_for(kind: str, target: str) -> str | None:
    """The same for a kind of data and a kind of labels; None if there is none."""
    alike = [
        slug
        for slug, entry in own_methods().items()
        if entry.baseline and entry.learns == target and kind in entry.modalities
    ]
    return alike[0] if alike else None


def all_methods() -> dict[str, Entry]:
    """Ours and those of installed packages with an entry point in the group `tacit.methods`.

    A third party's class is not read before it is wanted, so that listing imports nothing.
    """
    others = {
        point.name: Entry(
            point.value, "-", f"from {point.dist.name if point.dist else 'a plugin'}", modality="-"
        )
        for point in entry_points(group=ENTRY_POINTS)
    }
    return {**others, **own_methods()}


def check_registered(name: str, where: str) -> None:
    """Refuse a method that a file names and that is not on the list: a file may not choose what is imported.

    where: the file, in words.

    Raises:
        UsageError: it is not on the list; of `module:Class` it says how to ask for it.
    """
    methods = all_methods()
    if name in methods:
        return
    if _CODE.fullmatch(name):
        raise UsageError(
            f"{where} names code, '{name}', and code is imported only where you name it yourself: "
            f"tacit fit {name} ..."
        )
    raise unknown(f"method in {where}", name, methods)


def method_class(slug: str) -> type[Method]:
    """The class of a method: of a slug, or of `module:Class` for one that is not registered.

    Raises:
        UsageError: no method has this slug.
        TacitError: a plugin's class cannot be imported or is no Method.
    """
    methods = all_methods()
    if slug not in methods and not _CODE.fullmatch(slug):
        raise unknown("method", slug, methods)
    where = methods[slug].where if slug in methods else slug
    module, _, name = where.partition(":")
    from tacit.methods.base import Method

    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TacitError(f"method '{slug}' ({where}) cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise TacitError(f"method '{slug}' ({where}) is not a tacit.Method")
    return found
