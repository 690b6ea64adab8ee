"""TIFF files that no library here writes."""

import struct

import numpy as np

SHORTS = (258, 259, 262, 277, 339)


def tiff(values, order="<", *, white=1, format_=1, bits=None, width=None, compress=None, big=False):
    """(H, W) numbers as a TIFF of one strip.

    order: "<" or ">". white: 1 where zero is black, 0 where it is white. format_: 1 unsigned, 2 signed, 3
    fractions. big: as BigTIFF. width: what is said in place of the true one.
    """
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = data if compress is None else compress(data)
    head, entry, number, inline = (16, "HHQ", "Q", 8) if big else (8, "HHI", "I", 4)
    tags = {
        256: width or values.shape[1],
        257: values.shape[0],
        258: bits or 8 * values.dtype.itemsize,
        259: 1 if compress is None else 8,
        262: white,
        273: 0,
        277: 1,
        278: values.shape[0],
        279: len(data),
        339: format_,
    }
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    one = struct.calcsize(f"{order}{entry}") + inline
    tags[273] = head + len(count) + one * len(tags) + inline
    begin = b"II" if order == "<" else b"MM"
    out = (
        begin
        + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))
        + count
    )
    for tag, value in tags.items():
        kind = "H" if tag in SHORTS else "I"
        out += struct.pack(order + entry, tag, 3 if kind == "H" else 4, 1)
        out += struct.pack(order + kind, value).ljust(inline, b"\0")
    return out + struct.pack(order + number, 0) + data


def packed_12(values):
    """(H, W) numbers below 4096, W even, as the bytes of 12-bit rows."""
    pairs = values.reshape(len(values), -1, 2).astype(int)
    first, second = pairs[..., 0], pairs[..., 1]
    three = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    return three.reshape(len(values), -1).astype(np.uint8)
