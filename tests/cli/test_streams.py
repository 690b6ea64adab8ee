"""What the system refuses: full disks, closed pipes, encodings, folders that are gone. One line each."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tacit.cli import main as entry
from tacit.cli.main import main
from tacit.errors import TacitError, UsageError
from tacit.files import check_writable, expanded, replacing, write_atomically

METHODS = [sys.executable, "-m", "tacit", "methods"]


def run(words, shell_end="", **more):
    """A command with a redirection, as a shell starts it."""
    line = " ".join(f"'{word}'" for word in words) + shell_end
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, **more)


def test_output_that_is_lost_is_an_error_and_a_reader_that_has_enough_is_none():
    full = run(METHODS, " > /dev/full")
    assert (full.returncode, full.stderr) == (
        1,
        "tacit: cannot write to standard output: No space left on device\n",
    )
    closed = run(METHODS, " | head -1; exit ${PIPESTATUS[0]}")
    assert (closed.returncode, closed.stderr) == (0, "")
    assert closed.stdout.startswith("method ")
    for end in (" >&-", " 2>&-", " 2> /dev/full"):
        assert run(METHODS, end).returncode == 0


def test_help_that_is_lost_is_an_error_too():
    lost = run([*METHODS, "--help"], " > /dev/full")
    assert lost.returncode == 1
    assert lost.stderr.startswith("tacit: cannot write to standard output: ")


@pytest.fixture
def verb(monkeypatch):
    """Makes `tacit methods` do something else."""

    def use(do):
        module = type("module", (), {"run": staticmethod(lambda argv: do())})
        monkeypatch.setattr(entry, "import_module", lambda name: module)

    return use


class Full:
    """A stream whose disk is full after some characters."""

    def __init__(self, room):
        self.room, self.text, self.errors = room, "", "replace"

    def write(self, text):
        if len(self.text) + len(text) > self.room:
            raise OSError(28, "No space left on device")
        self.text += text

    def flush(self):
        pass

    def fileno(self):
        raise ValueError("none")


def test_nothing_that_is_computed_is_lost_with_its_output(verb, monkeypatch, capsys):
    done = []

    def compute():
        for step in range(5):
            print(f"step {step}", flush=True)
            print(f"step {step}", file=sys.stderr)
            done.append(step)

    verb(compute)
    out = Full(room=10)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["methods"]) == 1
    assert done == [0, 1, 2, 3, 4]
    assert out.text == "step 0\n"
    assert capsys.readouterr().err.endswith("cannot write to standard output: No space left on device\n")


def test_characters_that_the_terminal_does_not_have_are_escaped(tmp_path):
    (tmp_path / "grüße.py").write_text(
        "import sys; from tacit.cli import main; from types import SimpleNamespace\n"
        "main.import_module = lambda name: SimpleNamespace(run=lambda argv: print('Grüße'))\n"
        "sys.exit(main.main(['methods']))\n",
        "utf-8",
    )
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = run([sys.executable, str(tmp_path / "grüße.py")], env=ascii_only)
    assert (found.returncode, found.stdout, found.stderr) == (0, "Gr\\xfc\\xdfe\n", "")


def test_a_file_that_cannot_be_read_is_no_bug(verb, capsys, tmp_path):
    verb(lambda: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(tmp_path / "run.yaml"))))
    assert main(["methods"]) == 1
    assert capsys.readouterr().err == f"tacit: cannot use '{tmp_path / 'run.yaml'}': Permission denied\n"
    reason = "No usable temporary directory found in ['/tmp']"
    verb(lambda: (_ for _ in ()).throw(FileNotFoundError(2, reason)))
    assert main(["methods"]) == 1
    assert capsys.readouterr().err == f"tacit: {reason}: set TMPDIR to a folder that can be written\n"


def test_a_pipe_that_broke_elsewhere_is_not_success(verb, capsys):
    verb(lambda: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
    assert main(["methods"]) == 1
    assert "Broken pipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_end_in_one_line_and_their_exit_code(number, code, says, verb, capsys):
    before = signal.getsignal(number)
    tidied = []

    def work():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            tidied.append(True)

    verb(work)
    assert main(["methods"]) == code
    assert capsys.readouterr().err == f"tacit: {says}\n"
    assert tidied
    assert signal.getsignal(number) is before


def test_a_current_folder_that_was_deleted(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"cd '{gone}' && rmdir '{gone}' && '{sys.executable}' -m tacit methods"
    found = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "tacit: the current folder was deleted: change to one that exists\n"


def test_without_a_home_folder_the_message_names_what_to_set(monkeypatch):
    from tacit.data.options import Options

    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(UsageError, match=r"no home folder is known for '~x/photos': set HOME"):
        expanded("~x/photos")
    monkeypatch.delenv("TACIT_CACHE")
    with pytest.raises(UsageError, match=r"cache of decoded files: set TACIT_CACHE or HOME, or pass --cache"):
        _ = Options().stores


def test_a_device_is_never_replaced(tmp_path):
    for place in (Path("/dev/null"), Path("/dev/full")):
        with pytest.raises(TacitError, match="it is a device or a pipe; name a file"):
            write_atomically(place, "text")
        assert not place.is_file()
        with pytest.raises(TacitError, match="it is a device or a pipe"):
            check_writable(place)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(TacitError, match="it is a device or a pipe"), replacing(tmp_path / "link"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_file_that_cannot_be_written_is_refused_beforehand(tmp_path):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "deep" / "x.csv")
    check_writable(tmp_path / "file")
    with pytest.raises(TacitError, match=r"cannot write .*x.csv: .*file is not a folder"):
        check_writable(tmp_path / "file" / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
