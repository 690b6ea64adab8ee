"""`tacit VERB ...`: finds the verb, runs it, turns errors into one line and an exit code.

Nothing heavy is imported here: `tacit --help` must answer at once.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from tacit import __version__
from tacit.cli.streams import Lasting, lasting
from tacit.errors import TacitError, UsageError, escaped, unknown
from tacit.stopping import Terminated, hearing, terminate

# verb: what it does; the module of the same name in this package has `run(argv) -> None`
VERBS = {
    "fit": "learn an encoder from unlabelled data, or a classifier or segmenter from few labels",
    "probe": "measure what an encoder knows, on labelled data",
    "embed": "write a feature vector per file",
    "predict": "write a class and a calibrated confidence per file, or a mask per volume",
    "curve": "what methods gain over the labels alone, by number of labels",
    "claim": "test what a paper claims, on real data",
    "methods": "list the methods, or show one",
    "demo": "learn from real images and compare, in a few minutes",
}
_EXAMPLES = """examples:
  tacit fit dcl --data photos --out runs/photos
  tacit probe runs/photos --data labelled
  tacit embed runs/photos --data photos --out photos.parquet
  tacit fit --resume --out runs/photos
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted, 143 terminated."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _print_any_name()
    try:
        with lasting() as out:
            code = _run(arguments)
    except SystemExit:  # the parser's, after --help and --print_config
        if _lost(out):
            return _say_lost(out)
        raise
    return _say_lost(out) if code == 0 and _lost(out) else code


def _say_lost(out: Lasting) -> int:
    with lasting():
        return _say(f"cannot write to standard output: {_lost(out)}", 1)


def _lost(out: Lasting) -> str:
    """Why what was printed is lost; "" if it is not, or if a reader such as `head` has read enough."""
    failure = out.failure
    return "" if failure is None or isinstance(failure, BrokenPipeError) else failure.strerror or str(failure)


def _run(arguments: list[str]) -> int:
    try:
        with hearing(terminate, (signal.SIGTERM,)):
            return _dispatch(arguments)
    except TacitError as error:
        return _say(str(error), error.exit_code)
    except Terminated:
        return _say("terminated", 143)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except OSError as error:
        if os.environ.get("TACIT_TRACEBACK"):
            traceback.print_exc()
        return _say(_of_the_system(error), 1)
    except Exception as error:
        if os.environ.get("TACIT_TRACEBACK"):
            traceback.print_exc()
        reason = (str(error).strip() or "no message").splitlines()[0]
        return _say(
            f"failed unexpectedly ({type(error).__name__}: {reason}); "
            "set TACIT_TRACEBACK=1 to see where, and report it",
            1,
        )


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, and for which file."""
    reason = error.strerror or str(error) or type(error).__name__
    if "temporary directory" in reason:
        return f"{reason}: set TMPDIR to a folder that can be written"
    if isinstance(error.filename, str | bytes):
        return f"cannot use '{os.fsdecode(error.filename)}': {reason}"
    return f"{reason}; set TACIT_TRACEBACK=1 to see where"


def _print_any_name() -> None:
    """Print what the terminal's encoding lacks, such as bytes of a file's name, escaped rather than fail."""
    codecs.register_error("tacit.escaped", _as_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tacit.escaped")


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = escaped(error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode(), error.end


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"tacit {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise unknown("command", verb, VERBS)
    _check_current_folder()
    import_module(f"tacit.cli.{verb}").run(rest)
    return 0


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder was deleted: change to one that exists") from None


def _help() -> str:
    verbs = "\n".join(f"  {verb:9}{what}" for verb, what in VERBS.items())
    return (
        f"tacit {__version__}: learn from much data and few labels\n\n"
        f"usage: tacit VERB ...      (tacit VERB --help says more)\n\n{verbs}\n\n{_EXAMPLES}"
    )


def _say(message: str, code: int) -> int:
    one_line = " ".join(message.split())
    print(f"tacit: {one_line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
