"""What the documents tell people to type works as written."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tacit.cli.main import VERBS
from tacit.methods.registry import own_methods
from tacit.methods.starting import STARTS

ROOT = Path(__file__).parents[1]
TINY = "epochs=1, batch_size=16, encoder='tacit/convnet', device='cpu', quiet=True"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_five_lines_of_the_readme_run(jpgs, labelled_folder, tmp_path):
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line]) == 5
    (tmp_path / "photos").symlink_to(jpgs)
    (tmp_path / "labelled").symlink_to(labelled_folder)
    smaller = code.replace("epochs=100", TINY)
    assert smaller != code
    out = python(smaller, tmp_path)
    assert "learned" in out
    assert "random twin" in out
    assert (tmp_path / "photos.parquet").is_file()


def test_the_method_of_the_guide_runs(jpgs, tmp_path):
    method, use = blocks("docs/add-your-method.md", "python")
    (tmp_path / "align.py").write_text(method)
    (tmp_path / "photos").symlink_to(jpgs)
    python(use.replace("epochs=2", TINY), tmp_path)
    settings = yaml.safe_load((tmp_path / "runs" / "align" / "run.yaml").read_text())
    assert settings["method"]["weight"] == 0.5
    header = (tmp_path / "runs" / "align" / "metrics.csv").read_text().splitlines()[0]
    assert "align,uniform" in header


def test_the_source_of_the_page_on_files_runs(tmp_path):
    code = blocks("docs/your-files.md", "python")[-1]
    python(code.replace("epochs=2", TINY), tmp_path)
    assert (tmp_path / "runs" / "frames" / "encoder.json").is_file()


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


def test_the_readme_names_every_verb_and_method():
    text = (ROOT / "README.md").read_text()
    for word in (*VERBS, *own_methods()):
        assert re.search(rf"\b{word}\b", text), word


def test_the_readme_starts_where_the_command_does():
    text = (ROOT / "README.md").read_text()
    for start in STARTS:
        assert start.method in own_methods()
        words = f"{start.method} {start.words}".strip()
        assert f"| {start.situation} | `{words}` |" in text
        for page in re.findall(r"docs/[\w/.-]+\.md", start.why):
            assert (ROOT / page).is_file()


def test_architecture_names_what_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = {p.name for p in (ROOT / "src" / "tacit").iterdir() if p.is_dir() and p.name != "__pycache__"}
    for package in packages:
        assert f"`{package}/`" in text, package


def packaged(folder: Path, group: str, line: str) -> None:
    """As if a package with this entry point were installed in the folder."""
    place = folder / "mine-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text(f"[{group}]\n{line}\n")


def test_the_modality_of_the_guide_opens_embeds_and_probes(tmp_path):
    module, use = blocks("docs/add-your-modality.md", "python")
    assert len([line for line in module.splitlines() if line.strip()]) <= 80
    (tmp_path / "curves.py").write_text(module)
    packaged(tmp_path, "tacit.data", "curve = curves")
    draw, rows = np.random.default_rng(0), ["file,label"]
    (tmp_path / "curves").mkdir()
    for i in range(40):
        slow = i % 2
        curve = np.sin(np.arange(100 + i) * (0.1 if slow else 0.7)) + draw.normal(0, 0.1, 100 + i)
        np.savetxt(tmp_path / "curves" / f"{i}.csv", curve)
        rows.append(f"{i}.csv,{'slow' if slow else 'fast'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    out = python(use, tmp_path)
    assert "modality='curve', shape=(1, 100)" in out
    assert (tmp_path / "curves.parquet").is_file()
    learned = next(line for line in out.splitlines() if line.startswith("learned"))
    assert learned.split()[1] == "100.0"  # kNN tells slow from fast


def test_the_target_of_the_guide_is_learned_and_graded(labelled_folder, tmp_path):
    module, use = blocks("docs/add-your-target.md", "python")
    (tmp_path / "grades.py").write_text(module)
    (tmp_path / "graded.py").write_text(use.replace("epochs=2", TINY))
    packaged(tmp_path, "tacit.tasks", "grade = grades:TASK")
    (tmp_path / "xrays").symlink_to(labelled_folder)
    out = python("import runpy; runpy.run_module('graded', run_name='__main__')", tmp_path)
    watched, graded = map(float, out.split()[-2:])
    assert -1 <= watched <= 1
    assert -1 <= graded <= 1
    card = (tmp_path / "runs" / "graded" / "predictor.json").read_text()
    assert '"target": "grade"' in card
    names = [f"{path.parent.name}/{path.name}" for path in sorted(labelled_folder.glob("*/*.png"))]
    rows = [f"{name},{name.split('/')[0]}" for name in names]
    (tmp_path / "truth.csv").write_text("\n".join(["file,label", *rows]))
    again = "import tacit; print(tacit.predict('runs/graded', 'xrays', 'g.csv', labels='truth.csv').grades.n)"
    assert python(again, tmp_path).split() == [str(len(names))]  # its labels are named as classes are
