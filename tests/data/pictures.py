"""Image files that the tests of this folder make."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def smooth(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Something with structure in it, (height, width, channels) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin((seed + 1 + c) * x / 9 + y / (7 + c)) for c in range(channels)]
    return np.stack(waves, -1).astype(np.uint8)


def turned(path: Path) -> np.ndarray:
    """A JPEG whose EXIF says 'turn by 90 degrees clockwise'; returns the upright pixels."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:, :20] = (250, 10, 10)  # left half red: after the turn it is the upper half
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, quality=100, subsampling=0, exif=exif)
    return np.rot90(pixels, -1)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def tiff_of_nine_channels() -> bytes:
    """8 x 8 pixels of nine channels, which makes Pillow log an error."""
    samples = 9
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 2), (273, 122), (277, samples), (278, 8)]
    tags.append((279, 64 * samples))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return start + entries + bytes(4) + bytes(64 * samples)


def good_files(folder: Path) -> list[str]:
    """One file of every kind that is read; their names in order."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = Image.fromarray(smooth(30, 40))
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1)))
    rgb.save(folder / "rgb.JPG", quality=90)
    rgb.save(folder / "bmp.bmp")
    rgb.save(folder / "webp.webp", lossless=True)
    rgb.save(folder / "tiff.TIF", compression="tiff_lzw")
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("1").save(folder / "one_bit.png")
    rgb.convert("YCbCr").save(folder / "ycbcr.tiff", compression="tiff_lzw")
    rgb.quantize(16).save(folder / "palette.png")
    rgb.quantize(16).save(folder / "palette.gif")
    transparent = rgb.copy()
    transparent.putalpha(alpha)
    transparent.save(folder / "rgba.png")
    transparent.convert("LA").save(folder / "la.png")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(folder / "deep.png")
    turned(folder / "turned.jpeg")
    return sorted(path.name for path in folder.iterdir())


def bad_files(folder: Path) -> dict[str, str]:
    """One file of every kind that cannot be used, and a word of the reason for each."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = Image.fromarray(smooth(64, 64))
    reasons = {}

    def bad(name: str, reason: str) -> Path:
        reasons[name] = reason
        return folder / name

    for kind in ("jpg", "png", "bmp", "tif", "webp"):
        rgb.save(folder / f"whole.{kind}", **({"compression": "tiff_lzw"} if kind == "tif" else {}))
        data = (folder / f"whole.{kind}").read_bytes()
        (folder / f"whole.{kind}").unlink()
        bad(f"cut.{kind}", "damaged").write_bytes(data[: len(data) // 2])
    bad("cut_early.jpg", "damaged: its header").write_bytes(b"\xff\xd8\xff\xe0\x00")
    bad("empty.png", "empty file").write_bytes(b"")
    bad("text.jpg", "not an image").write_text("<html>not found</html>")
    rgb.resize((1, 1)).save(bad("tiny.png", "1 x 1 px: smaller than 4"))
    rgb.convert("CMYK").save(bad("print.jpg", "CMYK"))
    bad("nine.tif", "damaged").write_bytes(tiff_of_nine_channels())
    frames = [Image.fromarray(smooth(16, 16, seed)) for seed in range(3)]
    for name in ("moving.gif", "moving.webp", "pages.tiff", "moving.png"):
        frames[0].save(bad(name, "3 frames"), save_all=True, append_images=frames[1:])
    bad("wide.png", "longer than 20000 px").write_bytes(png_header(30_000, 8))
    bad("bomb.png", "too many pixels").write_bytes(png_header(15_000, 15_000))
    Image.fromarray(np.ones((8, 8), np.float32)).save(bad("float.tif", "floating-point"))
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(bad("long.tif", "32-bit pixels"))
    bad("gone.jpg", "a link to a file that does not exist").symlink_to(folder / "nowhere.jpg")
    np.save(bad("float.npy", "dtype float32"), np.ones((8, 8), np.float32))
    np.save(bad("first.npy", "channels must come last"), np.ones((5, 8, 8), np.uint8))
    np.save(bad("object.npy", "dtype object"), np.array([[{}] * 8] * 8), allow_pickle=True)
    np.save(folder / "whole.npy", np.ones((64, 64), np.uint8))
    bad("cut.npy", "damaged").write_bytes((folder / "whole.npy").read_bytes()[:999])
    (folder / "whole.npy").unlink()
    return reasons


def write(folder, *names, side=8):
    """Small images at these places below the folder, which is returned."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(side, side, seed)).save(folder / name)
    return folder


def stores(cache: Path) -> list[str]:
    """The folders in the cache that are stores or parts of one."""
    return sorted(path.name for path in (cache / "images").iterdir())
