import threading
import time

import pytest

from tacit.data import limits
from tacit.data.limits import MASK_RATIO, RATIO, UNPACKED, Room, check_memory, check_unpacked, size_in_words
from tacit.errors import BadFile, Unreadable

MIB, GIB = 2**20, 2**30


@pytest.fixture
def free(monkeypatch):
    """Bytes of memory that seem to be free, in a list of one."""
    held = [8 * GIB]
    monkeypatch.setattr(limits, "free_memory", lambda: held[0])
    return held


def test_a_quarter_of_a_gibibyte_may_come_out_of_anything():
    check_unpacked("a", 256 * MIB, 0)
    with pytest.raises(BadFile, match=r"a: it declares 256\.0 MiB in 0 bytes, which no real data need"):
        check_unpacked("a", UNPACKED + 1, 0)


@pytest.mark.parametrize("ratio", [RATIO, MASK_RATIO])
def test_beyond_it_the_size_of_the_file_decides(ratio):
    check_unpacked("a", ratio * 14 * MIB, 14 * MIB, ratio)
    with pytest.raises(BadFile, match=f"at most {ratio} times their size"):
        check_unpacked("a", ratio * 14 * MIB + 1, 14 * MIB, ratio)


def test_fourteen_megabytes_are_no_three_gibibytes_of_voxels():
    with pytest.raises(BadFile, match=r"declares 3\.0 GiB in 14\.0 MiB"):
        check_unpacked("a", 3 * GIB, 14 * MIB)
    check_unpacked("dSprites", 737_280 * 64 * 64, 26_000_000)  # 116 times its size, and real


def test_three_quarters_of_the_free_memory_are_taken_at_most(free):
    check_memory("a", 6 * GIB)
    with pytest.raises(Unreadable, match=r"takes 6\.0 GiB, and 8\.0 GiB are free"):
        check_memory("a", 6 * GIB + 1)
    free[0] = None  # not known: the system will say when there is none
    check_memory("a", 600 * GIB)


def test_small_samples_do_not_ask_for_the_memory(free):
    free[0] = 0
    check_memory("a", 32 * MIB)
    with Room().taken("a", 32 * MIB):
        pass


def test_two_that_do_not_fit_together_are_decoded_one_after_the_other(free):
    room, at_once, most = Room(), [], []

    def decode():
        with room.taken("a", 4 * GIB):
            at_once.append(1)
            most.append(len(at_once))
            time.sleep(0.02)
            at_once.pop()

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1, 1, 1, 1]


def test_what_fits_together_is_decoded_together(free):
    room, both = Room(), threading.Barrier(2, timeout=10)

    def decode():
        with room.taken("a", 2 * GIB):
            both.wait()  # neither goes on before the other is here

    threads = [threading.Thread(target=decode) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not both.broken


def test_room_is_given_back_after_an_error(free):
    room = Room()
    with pytest.raises(ValueError, match="damaged"), room.taken("a", 5 * GIB):
        raise ValueError("damaged")
    with room.taken("a", 5 * GIB):
        pass
    with pytest.raises(Unreadable), room.taken("a", 7 * GIB):
        pass


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (3 * GIB, "3.0 GiB"),
        (2**52, "4,194,304.0 GiB"),
    ],
)
def test_sizes_in_words(count, words):
    assert size_in_words(count) == words
