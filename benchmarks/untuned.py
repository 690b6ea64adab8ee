"""Begin a benchmark again without the settings by which OpenBLAS is told to use other kernels than it would.

Where OPENBLAS_CORETYPE or OPENBLAS_L2_SIZE are set, they slow numpy and scikit-learn, and so flatter whoever
races against them. OpenBLAS reads them when numpy is loaded, so that the process is replaced by a new one,
whose children have none of them either. Importing this module does that, in a benchmark of this folder only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def begin_again() -> None:
    """Replace the process if a setting is there and the program is a file beside this one."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    if program is None or Path(program).resolve().parent != Path(__file__).resolve().parent:
        return
    found = [name for name in SETTINGS if os.environ.pop(name, None) is not None]
    if found:
        print(f"begun again without {' and '.join(found)}", file=sys.stderr, flush=True)
        os.execv(sys.executable, sys.orig_argv)


begin_again()
