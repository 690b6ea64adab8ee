"""Files of run folders that bad disks, hand editing and strangers have changed: an error of ours, or as good.

`benchmarks/fuzz.py` does the same with many more, and with the files of data.
"""

import pytest

from mutations import mutate, watch_for_strangers, write_module
from run_readers import READERS
from tacit.errors import TacitError

EACH = 25
SEEN = watch_for_strangers()


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    write_module(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    assert not (folder / "executed").exists()


def refusal(reader, folder, seed):
    """The line with which a file was refused; "" if it was read."""
    try:
        reader.read(folder)
    except TacitError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return ""


@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_is_read_or_refused_in_one_line(name, tmp_path):
    reader = READERS[name]
    reader.make(tmp_path)
    path = tmp_path / reader.file
    sound = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    reader.read(tmp_path)
    SEEN.clear()
    refused = 0
    for seed in range(EACH):
        for file, content in sound.items():
            file.write_bytes(content)
        path.write_bytes(mutate(reader.kind, sound[path], seed))
        line = refusal(reader, tmp_path, seed)
        refused += bool(line)
        assert "\n" not in line, seed
        assert len(line) < 1000 + 2 * len(str(tmp_path)), seed
        assert not SEEN, seed
    if name != "cell.json":  # a damaged one counts as absent
        assert refused > EACH // 4
