"""A module imports only from its own floor's left or from below (docs/architecture.md)."""

import ast
from pathlib import Path

import tacit

ROOT = Path(tacit.__file__).parent
FLOORS = {
    "errors": 0,
    "files": 0,
    "checks": 0,
    "memory": 0,
    "locks": 0,
    "stopping": 0,
    "untrusted": 0,
    "batch": 0,
    "rng": 0,
    "views": 1,
    "losses": 1,
    "data": 2,
    "encoders": 3,
    "report": 4,
    "evaluation": 4,
    "tasks": 5,
    "methods": 6,
    "training": 7,
    "claims": 8,
    "battle": 9,
    "cli": 10,
}
FREE = {"__init__", "__main__"}  # the package's lazy names, and the entry point


WINGS = {"data/image": {"data/volume"}}
"""Folders of data that do not know others."""
SHARED = {"base", "parts", "recipe"}
"""What a family of methods may import of `methods/` besides itself."""


def imported(path: Path) -> set[str]:
    """Names of all modules of `tacit` that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name for name in names if name.startswith("tacit.")}
    return found - {"tacit.__version__"}


def imports(path: Path) -> set[str]:
    """First component below `tacit` of everything that a file imports."""
    return {name.split(".")[1] for name in imported(path)}


def violations(root: Path) -> list[str]:
    wrong = []
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).parts[0].removesuffix(".py")
        if place in FREE:
            continue
        for other in sorted(imports(path)):
            same = other == place
            if not same and FLOORS[other] >= FLOORS[place] and not (FLOORS[other] == FLOORS[place] == 0):
                wrong.append(f"{path.relative_to(root)} imports tacit.{other}")
    return wrong


def test_nothing_imports_from_above_or_beside():
    # views and losses share a floor and do not know each other
    assert violations(ROOT) == []


def strangers(root: Path) -> list[str]:
    """Imports of one family of methods from another, and of one wing of data from one it does not know."""
    wrong = []
    for path in sorted((root / "methods").glob("*/**/*.py")):
        family = path.relative_to(root).parts[1]
        known = SHARED if family == "parts" else {*SHARED, family}
        used = {name.split(".")[2] for name in imported(path) if name.startswith("tacit.methods.")}
        wrong += [f"{path.relative_to(root)} imports methods/{other}" for other in sorted(used - known)]
    for wing, unknown in WINGS.items():
        for path in sorted((root / wing).rglob("*.py")):
            used = {"/".join(name.split(".")[1:3]) for name in imported(path)}
            wrong += [f"{path.relative_to(root)} imports {other}" for other in sorted(used & unknown)]
    return wrong


def test_families_and_wings_do_not_know_each_other():
    assert strangers(ROOT) == []


def test_the_check_sees_a_stranger(tmp_path):
    for place, line in {
        "methods/contrastive/deep/bad.py": "from tacit.methods.clustering.swav import SwAV\n",
        "methods/parts/bad.py": "from tacit.methods import contrastive\n",
        "data/image/bad.py": "def f():\n    import tacit.data.volume.files\n",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(line)
    assert strangers(tmp_path) == [
        "methods/contrastive/deep/bad.py imports methods/clustering",
        "methods/parts/bad.py imports methods/contrastive",
        "data/image/bad.py imports data/volume",
    ]


def test_the_check_sees_a_violation(tmp_path):
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "bad.py").write_text("def f():\n    from tacit.methods import base\n")
    assert violations(tmp_path) == ["losses/bad.py imports tacit.methods"]


def test_methods_know_nothing_of_lightning_files_or_the_command_line():
    forbidden = {"lightning", "pathlib", "os", "argparse", "jsonargparse"}
    for path in (ROOT / "methods").rglob("*.py"):
        if path.name == "registry.py":  # reads the other files
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path
