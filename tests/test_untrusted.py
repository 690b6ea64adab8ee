"""Reading what anybody can have written: no device, no pipe, nothing endless, and plain values alone."""

import datetime
import math
import os

import pytest

from tacit import untrusted
from tacit.checks import check_number, check_whole, shortly
from tacit.untrusted import dump_yaml, open_file, parse_yaml, read_bytes, read_json, read_yaml

BOMB = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{b}, *{b}, *{b}, *{b}, *{b}, *{b}, *{b}, *{b}, *{b}]\n"
    for b, c in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.fixture(params=["folder", "pipe", "device", "a link to a device", "a link to a pipe", "socket"])
def unreadable(request, tmp_path):
    path, pipe = tmp_path / "file", tmp_path / "pipe"
    match request.param:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            return "/dev/zero"
        case "a link to a device":
            path.symlink_to("/dev/zero")
        case "a link to a pipe":
            os.mkfifo(pipe)
            path.symlink_to(pipe)
        case "socket":
            import socket

            os.chdir(tmp_path)  # a socket's path may have 108 characters
            with socket.socket(socket.AF_UNIX) as made:
                made.bind("file")
    return path


def test_what_is_no_regular_file_is_not_opened(unreadable, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setattr(os, "open", None)  # called, it would be an error of another kind
    with pytest.raises(OSError, match="must be a file"):
        open_file(unreadable)
    for read in (read_json, read_yaml):
        with pytest.raises(OSError, match="must be a file"):
            read(unreadable)


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    path, sound = tmp_path / "file", tmp_path / "sound"
    os.mkfifo(path)
    sound.touch()
    found = os.stat(sound)
    monkeypatch.setattr(os, "stat", lambda path: found)
    with pytest.raises(OSError, match="it is a pipe"):
        open_file(path)


def test_links_to_files_are_read(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "link", 1) == b"x"


def test_large_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"larger than 16,777,216 bytes"):
        read_json(path)
    with pytest.raises(ValueError, match="larger than 7 bytes"):
        read_bytes("/proc/self/status", 7)  # says that it has no bytes, and has


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "alias"),
        ("a: &a [*a]", "alias"),
        ("[" * 40 + "]" * 40, "32 levels"),
        ("[" * 100_000, "levels|nesting"),
        ("a: !!python/object/apply:os.system ['touch x']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!set {b}", "a set"),
        ("a: !!binary aGk=", "a bytes"),
        ("a: [", "expected"),
        ("a: !!int x", "invalid literal"),
        ("a: \x07", "special characters are not allowed|control characters are not allowed"),
        ("{[]: 1}", "unhashable"),
        ("a: " + "9" * 5000, "limit"),
        ("--- 1\n--- 2", "single document"),
    ],
)
def test_yaml_that_is_not_plain(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_plain_yaml_is_read_as_people_mean_it():
    text = "a: 1e-3\nb: 2024-01-02\nc: [1, 1.5, true, null, x]\nd: .nan\ne: 1.5e+3\nf: '1e5'\n"
    found = parse_yaml(text)
    assert math.isnan(found.pop("d"))
    assert found == {
        "a": 0.001,
        "b": "2024-01-02",
        "c": [1, 1.5, True, None, "x"],
        "e": 1500.0,
        "f": "1e5",
    }


def test_what_is_written_is_read_as_it_was():
    same = [1.5, "two"]
    values = {"a": "1e5", "b": "2024-01-02", "c": 1e-5, "d": "yes", "e": same, "f": same, "ü": "é", "g": {}}
    assert parse_yaml(dump_yaml(values)) == values
    assert "*" not in dump_yaml(values)  # equal values are no aliases
    assert not isinstance(parse_yaml(dump_yaml(values))["b"], datetime.date)


def test_json_that_is_damaged_is_one_line(tmp_path):
    path = tmp_path / "x.json"
    for text in ("{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\xff", ""):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r".") as caught:
            read_json(path)
        assert "\n" not in untrusted.first_line(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "1", None, True, [1.0], -1])
def test_numbers_out_of_their_range(value):
    with pytest.raises(ValueError, match=r"its x is .*, and must be a count"):
        check_number("x", value, lambda number: number >= 0, "a count")


@pytest.mark.parametrize("value", [0, 6, 2.0, True, "3", None, 10**400])
def test_whole_numbers_out_of_their_range(value):
    with pytest.raises(ValueError, match="a whole number from 1 to 5"):
        check_whole("x", value, 1, 5)
    check_whole("x", 1, 1, 5)
    check_whole("x", 5, 1, 5)


def test_values_in_messages_are_short_and_one_line():
    deep = [[[["x" * 100] * 100] * 100] * 100]
    for value in ("x" * 10**6, list(range(10**5)), deep, "a\nb", {"a": deep}):
        assert len(shortly(value)) < 200
        assert "\n" not in shortly(value)
