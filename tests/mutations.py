"""Mutations of files, each a function of a seed: what strangers, bad disks and hand editing make of them.

`mutate(kind, content, seed)` gives the bytes of a mutated file. `kind` names what is known of the content:
any file can be mutated as `bytes`; `json`, `yaml`, `csv`, `safetensors` and `checkpoint` are also taken
apart, changed at a random place, and put together again, so that what comes out is well-formed and wrong.
"""

from __future__ import annotations

import copy
import io
import json
import math
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

MODULE = "stranger_of_tacit"
"""A module that nothing may import, and beneath which nothing may be opened."""
PLACE = f"/{MODULE}/weights.pth"
DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 255, 65_536, 10_000_000, 2**31, 2**63, 10**400),
    *(0.5, -0.0, 1e-300, 1e300, -1e300, 1e7, math.nan, math.inf, -math.inf),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, "", "a", "nan", "1e400", "x" * 5000, "a\nb", "\x00", "\ud800", "é" * 40),
    *([], [[]], {}, [None], [1, "a"], list(range(300)), {"a": {"b": {}}}, DEEP),
    *("../" * 30 + "etc/passwd", "/dev/zero", PLACE, f"run:{PLACE}", f"random:run:{PLACE}"),
    *(f"{MODULE}:Thing", f"{MODULE}.Thing", {"class_path": f"{MODULE}.Thing", "init_args": {"a": 1}}),
    *(f"timm/resnet18?checkpoint_path={PLACE}", f"timm/resnet18?pretrained_cfg_overlay={PLACE}"),
    *("timm/vit_giant_patch14_224", "tacit/convnet?width=1000000", "tacit/unet3d?depth=1000", "volume"),
    *("image", "class", "mask", "value", "timm/resnet18.a1_in1k", "tacit/slices?image=tacit/convnet"),
)

Bytes = Callable[[bytes, random.Random], bytes]
Tree = Callable[[Any, random.Random], Any]


def mutate(kind: str, content: bytes, seed: int) -> bytes:
    """The content with one to three mutations that suit its kind."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        try:
            content = draw.choice(MUTATORS[kind])(content, draw)
        except Exception:  # it cannot be taken apart any more
            content = draw.choice(ANY)(content, draw)
    return content


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(draw.choice((1, 1, 4, 30))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _cut(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * draw.choice((1, 2, 50)) + content[end:]


def _fill(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    length = draw.choice((1, 4, 8, 64))
    byte = draw.choice((b"\0", b"\xff", b"[", b'"', b"&a *a ", b"9"))
    return content[:start] + byte * length + content[start + length :]


def _empty(content: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\0", b"\n", b"null", b"[" * 100_000, b"\xef\xbb\xbf" + content, b"PK\x03\x04"))


ANY: tuple[Bytes, ...] = (_flip, _truncate, _cut, _repeat, _fill, _empty)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    todo = [tree]
    while todo:
        inside = todo.pop()
        pairs = inside.items() if isinstance(inside, dict) else enumerate(inside)
        for key, value in pairs:
            yield inside, key
            if isinstance(value, dict | list):
                todo.append(value)


def _place(tree: Any, draw: random.Random) -> tuple[Any, Any]:
    return draw.choice(list(_places(tree)))


def _delete(tree: Any, draw: random.Random) -> Any:
    inside, key = _place(tree, draw)
    del inside[key]
    return tree


def _number(tree: Any, draw: random.Random) -> Any:
    inside, key = _place(tree, draw)
    inside[key] = draw.choice(NUMBERS)
    return tree


def _swap(tree: Any, draw: random.Random) -> Any:
    inside, key = _place(tree, draw)
    inside[key] = copy.deepcopy(draw.choice(OTHERS))
    return tree


def _exchange(tree: Any, draw: random.Random) -> Any:
    (one, i), (other, j) = _place(tree, draw), _place(tree, draw)
    one[i] = copy.deepcopy(other[j])
    return tree


def _wrap(tree: Any, draw: random.Random) -> Any:
    inside, key = _place(tree, draw)
    inside[key] = draw.choice(([inside[key]], {"a": inside[key]}, [inside[key]] * 3, str(inside[key])))
    return tree


def _add(tree: Any, draw: random.Random) -> Any:
    inside, _ = _place(tree, draw)
    name = draw.choice(("unknown", "class_path", "a.b", "config", "__path__", "", "name", "patch", "\n"))
    value = draw.choice((*NUMBERS, *OTHERS))
    if isinstance(inside, dict):
        inside[name] = copy.deepcopy(value)
    else:
        inside.append(copy.deepcopy(value))
    return tree


def _root(tree: Any, draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice((*NUMBERS, *OTHERS, [tree], {"a": tree})))


TREE: tuple[Tree, ...] = (*(_delete, _number, _swap) * 3, _exchange, _wrap, _add, _add, _root)


def of_text(read: Callable[[str], Any], write: Callable[[Any], str]) -> tuple[Bytes, ...]:
    """Mutations of a text's values."""

    def of(change: Tree) -> Bytes:
        def changed(content: bytes, draw: random.Random) -> bytes:
            return write(change(read(content.decode()), draw)).encode("utf-8", "surrogatepass")

        return changed

    return tuple(map(of, TREE))


def _csv(content: bytes, draw: random.Random) -> bytes:
    """One cell, one row or one column of a table."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = draw.choice(rows)
    column = draw.randrange(max(1, len(row)))
    cells = (
        "",
        "nan",
        "inf",
        "1e999",
        "-1",
        "a",
        '"',
        '"a',
        "9" * 5000,
        "\0",
        "a,b",
        "0x10",
        "$\\frac{",
        "=1+1",
    )
    match draw.randrange(7):
        case 0 | 1:
            row[column] = draw.choice(cells)
        case 2:
            rows.remove(row)
        case 3:
            rows.insert(draw.randrange(len(rows) + 1), list(row))
        case 4:
            for each in rows:
                each.insert(column, draw.choice(cells))
        case 5:
            for each in rows:
                del each[column : column + 1]
        case _:
            row[:] = row * draw.choice((2, 300))
    return (draw.choice(("\n", "\n", "\r\n", "\r")).join(",".join(each) for each in rows) + "\n").encode()


def _tensor(tree: Any, draw: random.Random) -> Any:
    """One tensor of a checkpoint: its values, its shape or its kind."""
    found = [(inside, key) for inside, key in _places(tree) if isinstance(inside[key], Tensor)]
    inside, key = draw.choice(found)
    value = inside[key]
    inside[key] = draw.choice(_TENSORS)(value)
    return tree


_TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda t: torch.full_like(t, math.nan) if t.is_floating_point() else t - 10**6,
    lambda t: torch.full_like(t, math.inf) if t.is_floating_point() else t + 10**6,
    lambda t: -t.abs() - 1,
    lambda t: t.flatten()[:-1],
    lambda t: t[None],
    lambda t: t.double() if t.is_floating_point() else t.float(),
    lambda t: t.long() if t.is_floating_point() else t.bool(),
    lambda t: torch.zeros(1).expand(10**6, 10**6),
    lambda t: torch.empty(10**6, 10**6, device="meta"),
    lambda t: t.to_sparse(),
    lambda t: t.to(torch.complex64),
    lambda t: t.tolist(),
    lambda t: None,
)


def _checkpoint(content: bytes, draw: random.Random) -> bytes:
    tree = torch.load(io.BytesIO(content), weights_only=True)
    change = _tensor if draw.random() < 0.4 else draw.choice(TREE)
    file = io.BytesIO()
    torch.save(change(tree, draw), file)
    return file.getvalue()


def _header(content: bytes, draw: random.Random) -> bytes:
    """The header of a safetensors file, with its length put right or not."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(draw.choice(TREE)(header, draw)).encode()
    said = len(text) if draw.random() < 0.9 else draw.choice((0, 2**63, len(text) + 1, len(content)))
    return struct.pack("<Q", said) + text + content[8 + length :]


def _weights(content: bytes, draw: random.Random) -> bytes:
    """Eight bytes of the values of a safetensors file, all ones: not a number."""
    (length,) = struct.unpack("<Q", content[:8])
    start = 8 + length + 8 * draw.randrange(max(1, (len(content) - 8 - length) // 8))
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


MUTATORS: dict[str, tuple[Bytes, ...]] = {
    "bytes": ANY,
    "json": (*of_text(json.loads, json.dumps), *ANY[:3]),
    "yaml": (*of_text(yaml.safe_load, lambda tree: yaml.safe_dump(tree, sort_keys=False)), *ANY),
    "csv": (*(_csv,) * 6, *ANY),
    "checkpoint": (*(_checkpoint,) * 8, *ANY),
    "safetensors": (*(_header,) * 6, _weights, _weights, *ANY),
}
"""What can be done to a kind of file."""


def watch_for_strangers() -> list[str]:
    """A list that grows whenever this process imports `MODULE`, opens `PLACE`, or starts a program."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("import", "open") and MODULE in str(arguments[0]):
            seen.append(f"{event} {arguments[0]}")
        elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"):
            seen.append(event)

    sys.addaudithook(hook)
    return seen


def write_module(folder: Path) -> None:
    """A module that creates a file named `executed` beside itself when it is imported."""
    (folder / f"{MODULE}.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('executed').touch()\nclass Thing: pass\n"
    )
