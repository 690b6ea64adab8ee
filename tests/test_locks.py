"""A folder that is being written has one owner, and a killed owner does not keep it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tacit import locks
from tacit.errors import TacitError, UsageError
from tacit.locks import LOCK, owning

OWN = """
import sys, time
from pathlib import Path
from tacit.locks import owning
with owning(Path(sys.argv[1])):
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that owns tmp_path / "run"."""
    script = OWN + "    print('owned', flush=True); time.sleep(60)"
    words = [sys.executable, "-c", script, str(tmp_path / "run")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "owned\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_which_folder_and_what_to_do(owner, tmp_path):
    with pytest.raises(UsageError) as refused, owning(tmp_path / "run"):
        pytest.fail("two owners")
    message = str(refused.value)
    assert message.startswith(f"'{tmp_path / 'run'}' is in use by process {owner.pid} on ")
    assert message.endswith(": wait until it has ended, or choose another --out")
    assert (tmp_path / "run" / LOCK).is_file()  # the owner's, which the refused one leaves alone


def test_a_lock_that_a_killed_process_left_does_not_block(owner, tmp_path):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (tmp_path / "run" / LOCK).is_file()
    with owning(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_one_folder_by_two_names_has_one_owner(owner, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(UsageError, match="is in use by"), owning(tmp_path / "link"):
        pass


def test_blocks_are_nested_in_one_thread_and_refused_in_another(tmp_path):
    refused = []

    def second():
        try:
            with owning(tmp_path / "run"):
                pass
        except UsageError as error:
            refused.append(str(error))

    with owning(tmp_path / "run"):
        with owning(tmp_path / "link" / ".." / "run"):
            pass
        assert (tmp_path / "run" / LOCK).is_file()  # still owned after the inner block
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    second()
    assert len(refused) == 1


def test_empty_folders_that_were_created_are_removed_and_others_stay(tmp_path):
    (tmp_path / "there").mkdir()
    with owning(tmp_path / "a" / "b" / "c"):
        pass
    with owning(tmp_path / "there"):
        pass
    with owning(tmp_path / "kept" / "run"):
        (tmp_path / "kept" / "run" / "file").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept", "run", "there"]


def test_the_owner_of_a_removed_lock_is_not_the_owner(tmp_path, monkeypatch):
    """Two processes open the lock's file while its owner removes it: they must not lock one file each."""
    import fcntl

    real, folder = fcntl.flock, tmp_path / "run"

    def removed_first(handle, how):
        monkeypatch.setattr(fcntl, "flock", real)
        (folder / LOCK).unlink()  # as its last owner does, between our open and our lock
        return real(handle, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with owning(folder):
        assert (folder / LOCK).is_file()
        code = OWN + "    print('owned')"
        other = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
        )
        assert "is in use by" in other.stderr
        assert other.stdout == ""


def test_where_there_are_no_locks_a_note_says_so(tmp_path, monkeypatch, capsys):
    import errno
    import fcntl

    def missing(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", missing)
    with owning(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert "has no locks: start no second run in this folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_the_lock_for_windows_refuses_and_frees(tmp_path):
    first = locks._lock_with_filelock(tmp_path / LOCK)
    with pytest.raises(BlockingIOError):
        locks._lock_with_filelock(tmp_path / LOCK)
    first()
    locks._lock_with_filelock(tmp_path / LOCK)()
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_owned_are_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file' is a file; choose another --out"), owning(tmp_path / "file"):
        pass
    inside = tmp_path / "file" / "run"
    with pytest.raises(TacitError, match=r"cannot write .*run: Not a directory"), owning(inside):
        pass
    with pytest.raises(TacitError, match=r"cannot write /proc/run: "), owning(Path("/proc/run")):
        pass
    with pytest.raises(UsageError, match=r"null' is a file"), owning(Path("/dev/null")):
        pass
