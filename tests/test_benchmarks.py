"""Benchmarks race against numpy as it is installed, whatever the environment says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHOW = """
import os, subprocess, sys
import untuned
child = "import os; print(sorted(name for name in os.environ if name.startswith('OPENBLAS')))"
print(sorted(name for name in os.environ if name.startswith("OPENBLAS")), sys.argv[1:], flush=True)
subprocess.run([sys.executable, "-c", child], check=True)
"""


def run(program, folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS")}
    environment |= {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "512", "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(folder)}
    command = [sys.executable, str(program), "--quick", "a b"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_a_benchmark_begins_again_without_settings_that_slow_numpy(tmp_path):
    shutil.copy(BENCHMARKS / "untuned.py", tmp_path)
    program = tmp_path / "show.py"
    program.write_text(SHOW)
    found = run(program, tmp_path)
    assert found.stdout.splitlines() == [
        "['OPENBLAS_NUM_THREADS'] ['--quick', 'a b']",
        "['OPENBLAS_NUM_THREADS']",
    ]
    assert found.stderr == "begun again without OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE\n"


def test_another_program_that_imports_it_goes_on(tmp_path):
    program = tmp_path / "show.py"
    program.write_text(SHOW)
    found = run(program, BENCHMARKS)
    assert "'OPENBLAS_CORETYPE'" in found.stdout.splitlines()[0]
    assert not found.stderr


def test_what_times_all_contestants_imports_it():
    assert "\nimport untuned" in (BENCHMARKS / "race.py").read_text()
    assert "\nfrom race import" in (BENCHMARKS / "probe.py").read_text()
