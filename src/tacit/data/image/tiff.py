"""What the tags of a TIFF say of its pixels, where Pillow reads them wrongly or not at all."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import IO, NamedTuple

_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # tags
_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}  # the last two: BigTIFF
_NUMBERS = {3: "H", 4: "I"}  # types of values: SHORT, LONG
_MOST = 4096  # entries of a directory that are looked at
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_FORMATS = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


class _Tag(NamedTuple):
    """place: of its first value in the file. number: its format. values: as they are, at most 8."""

    place: int
    number: str
    values: tuple[int, ...]


def black_is_zero(file: IO[bytes]) -> tuple[IO[bytes], bool]:
    """The file itself, and False; of a TIFF with 16 bits whose white is 0 a copy that says black, and True.

    The copy's values are those of the file, so that 65,535 less each is the picture. Pillow (13) takes the
    values of little-endian files as they are, which shows a negative, and reads no big-endian ones.
    """
    tags = _tags(file)
    bits, photometric = tags.get(_BITS), tags.get(_PHOTOMETRIC)
    file.seek(0)
    if bits is None or photometric is None or bits.values != (16,) or photometric.values != (_WHITE_IS_ZERO,):
        return file, False
    data = bytearray(file.read())
    struct.pack_into(photometric.number, data, photometric.place, _BLACK_IS_ZERO)
    return BytesIO(data), True


def kind_of(file: IO[bytes]) -> str:
    """What unusual pixels a TIFF has, such as "floating-point pixels of 16 bits"; "" of other files."""
    tags = _tags(file)
    if _BITS not in tags:
        return ""
    bits = max(tags[_BITS].values)
    format_ = _FORMATS.get(max(tags[_FORMAT].values) if _FORMAT in tags else 1, "")
    if not format_ and bits in (1, 8, 16):
        return ""
    white = _PHOTOMETRIC in tags and tags[_PHOTOMETRIC].values == (_WHITE_IS_ZERO,)
    return f"{format_}pixels of {bits} bits{', white is 0' if white else ''}"


def _tags(file: IO[bytes]) -> dict[int, _Tag]:
    """What the first directory says of the pixels; nothing where it is damaged, or the file is no TIFF."""
    file.seek(0)
    start = file.read(16)
    order = _ORDERS.get(start[:4])
    if order is None:
        return {}
    big = b"+" in start[2:4]
    count_form, entry_form, first_form = (
        (f"{order}Q", f"{order}HHQ", f"{order}Q") if big else (f"{order}H", f"{order}HHI", f"{order}I")
    )
    value_at = struct.calcsize(entry_form)
    inline = struct.calcsize(first_form)
    found = {}
    try:
        (first,) = struct.unpack_from(first_form, start, 8 if big else 4)
        file.seek(first)
        (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
        begin, size = file.tell(), value_at + inline
        table = file.read(min(count, _MOST) * size)
        for at in range(0, len(table) - size + 1, size):
            tag, kind, values = struct.unpack_from(entry_form, table, at)
            if tag not in (_BITS, _PHOTOMETRIC, _FORMAT) or kind not in _NUMBERS or not 0 < values <= 8:
                continue
            number = order + _NUMBERS[kind]
            place = begin + at + value_at
            if values * struct.calcsize(number) > inline:
                (place,) = struct.unpack_from(first_form, table, at + value_at)
            file.seek(place)
            several = f"{order}{values}{_NUMBERS[kind]}"
            read = struct.unpack(several, file.read(struct.calcsize(several)))
            found[tag] = _Tag(place, number, read)
    except (struct.error, OSError, ValueError, OverflowError):
        return {}  # opening it will say what is wrong
    return found
