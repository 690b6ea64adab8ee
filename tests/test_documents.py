"""What the documents tell people to type works as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tacit.cli.main import VERBS
from tacit.methods.registry import own_methods

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


def test_architecture_names_what_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = {p.name for p in (ROOT / "src" / "tacit").iterdir() if p.is_dir() and p.name != "__pycache__"}
    for package in packages:
        assert f"`{package}/`" in text, package
