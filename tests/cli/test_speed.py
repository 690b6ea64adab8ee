"""What must be quick because everyone waits for it. Measured over bare Python, best of several."""

import subprocess
import sys
import time

BARE = [sys.executable, "-c", "pass"]


def best_of(command, times=5):
    """Seconds of the quickest run: load of the machine only ever adds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return min(taken)


def test_import_costs_nothing():
    assert best_of([sys.executable, "-c", "import tacit"]) - best_of(BARE) < 0.1


def test_help_answers_at_once():
    assert best_of([sys.executable, "-m", "tacit", "--help"]) < 0.3


def test_help_and_import_load_no_torch():
    code = "import sys, tacit, tacit.cli.main as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
