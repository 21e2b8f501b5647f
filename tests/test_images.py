"""Images in: pixels equal to Pillow's, every kind of source, and a clear refusal of the rest."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from trtinfer import images
from trtinfer.errors import InputError

ORIENTATION = 0x0112


def photo(height=37, width=53, seed=0):
    """A smooth picture with noise, different in every corner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([128 + 100 * np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)], -1)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def encode(image, kind, **options):
    """The bytes of a picture (array or PIL image) in a file format."""
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_pillow(data):
    """What Pillow makes of a file: upright, RGB."""
    image = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGBA").convert("RGB"))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (480, 640), (17, 900)])
def test_jpeg_pixels_equal_pillow(size, progressive, subsampling):
    data = encode(
        photo(*size), "JPEG", quality=90, subsampling=subsampling, progressive=progressive
    )
    np.testing.assert_array_equal(images.decode(data), as_pillow(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_any_color_space_equals_pillow(mode):
    data = encode(PIL.Image.fromarray(photo()).convert(mode), "JPEG")
    np.testing.assert_array_equal(images.decode(data), as_pillow(data))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_of_any_mode_equals_pillow(mode):
    data = encode(PIL.Image.fromarray(photo()).convert(mode), "PNG")
    np.testing.assert_array_equal(images.decode(data), as_pillow(data))


def test_palette_with_transparency_keeps_its_colors():
    picture = PIL.Image.fromarray(photo()).convert("P")
    data = encode(picture, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(images.decode(data), np.asarray(picture.convert("RGB")))


def test_alpha_is_dropped_and_not_blended():
    rgba = np.dstack([photo(), np.zeros((37, 53), np.uint8)])
    np.testing.assert_array_equal(images.decode(encode(rgba, "PNG")), photo())
    np.testing.assert_array_equal(images.decode(rgba), photo())


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA"])
def test_other_formats_equal_pillow(kind):
    data = encode(photo(), kind)
    np.testing.assert_array_equal(images.decode(data), as_pillow(data))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_keeps_its_high_byte(kind):
    wide = (np.arange(37 * 53, dtype=np.uint16) * 33).reshape(37, 53)
    expected = np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(images.decode(encode(wide, kind)), expected)
    np.testing.assert_array_equal(images.decode(wide), expected)


def test_animation_gives_its_first_frame():
    first, second = PIL.Image.fromarray(photo(seed=1)), PIL.Image.fromarray(photo(seed=2))
    data = encode(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(images.decode(data), photo(seed=1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind, orientation):
    tag = PIL.Image.Exif()
    tag[ORIENTATION] = orientation
    data = encode(photo(), kind, exif=tag)
    image = images.load(data)
    assert image.shape == ((53, 37, 3) if orientation >= 5 else (37, 53, 3))
    np.testing.assert_array_equal(image.decode(), as_pillow(data))
    opened = PIL.Image.open(io.BytesIO(data))
    for _ in range(2):  # before and after Pillow loads it
        assert images.load(opened).shape == image.shape
        np.testing.assert_array_equal(images.decode(opened), as_pillow(data))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pillow_decodes_a_jpeg_alike_where_simplejpeg_is_missing(monkeypatch, mode):
    data = encode(PIL.Image.fromarray(photo(90, 70)).convert(mode), "JPEG")
    before = images.decode(data)
    monkeypatch.setattr(images, "simplejpeg", None)
    np.testing.assert_array_equal(images.decode(data), before)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of Pillow, where there is no simplejpeg
def test_damaged_exif_leaves_the_image_as_stored():
    block = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    data = encode(photo(), "JPEG", exif=block)
    np.testing.assert_array_equal(images.decode(data), as_pillow(encode(photo(), "JPEG")))


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    data = encode(photo(), "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    sources = [
        str(path), path, data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8),
        memoryview(np.repeat(np.frombuffer(data, np.uint8), 2))[::2],
        io.BytesIO(data), PIL.Image.open(io.BytesIO(data)), PIL.Image.fromarray(photo()), photo(),
        photo()[::-1][::-1], np.asfortranarray(photo()), images.load(data),
    ]  # fmt: skip
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        for source in [*sources, file, raw]:
            np.testing.assert_array_equal(images.decode(source), photo())


def test_arrays_of_any_channel_count_are_pixels():
    gray = photo()[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=2)
    for source in (gray, gray[..., None], np.dstack([gray, gray // 2])):
        np.testing.assert_array_equal(images.decode(source), expected)
    np.testing.assert_array_equal(images.decode(gray > 100), np.where(expected > 100, 255, 0))
    deep = photo().astype(">u2") << 8
    np.testing.assert_array_equal(images.decode(deep), photo())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decodes_into_the_callers_memory(kind):
    data = encode(photo(), kind)
    arena = np.full(37 * 53 * 3 + 20, 7, np.uint8)
    image = images.load(data)
    image.decode_into(arena[10:-10].reshape(image.shape))
    np.testing.assert_array_equal(arena[10:-10].reshape(image.shape), as_pillow(data))
    assert (arena[:10] == 7).all()
    assert (arena[-10:] == 7).all()


@pytest.mark.parametrize(
    "out",
    [
        np.empty((36, 53, 3), np.uint8),
        np.empty((37, 53, 3), np.float32),
        np.empty((37, 54, 3), np.uint8)[:, 1:],
        np.frombuffer(bytes(37 * 53 * 3), np.uint8).reshape(37, 53, 3),
    ],
)
def test_refuses_a_buffer_that_does_not_fit(out):
    with pytest.raises(InputError, match=r"writable C-contiguous uint8 .*\(37, 53, 3\), got"):
        images.load(encode(photo(), "JPEG")).decode_into(out)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_refuses_a_truncated_file(kind, share):
    data = encode(photo(200, 300), kind)
    with pytest.raises(InputError, match=r"bytes"):
        images.decode(data[: int(len(data) * share)])


def test_refuses_a_jpeg_with_damaged_pixels():
    pytest.importorskip("simplejpeg", reason="Pillow decodes it all the same")
    data = bytearray(encode(photo(200, 300), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd3"  # a restart that no encoder wrote
    with pytest.raises(InputError, match="cannot be decoded"):
        images.decode(data)


def test_refuses_garbage_of_every_length():
    rng = np.random.default_rng(5)
    starts = (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"BM",
        b"RIFF1234WEBP",
    )
    for start in starts:
        for length in (0, 1, 2, 7, 16, 100, 5000):
            with pytest.raises(InputError):
                images.decode(start + rng.bytes(length) if start else rng.bytes(length))


def test_damaged_files_are_decoded_or_refused_and_nothing_else():
    rng = np.random.default_rng(6)
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TGA", "JPEG2000"]
    files = [encode(photo(60, 80), kind) for kind in kinds]
    refused = 0
    for count in range(800):
        data = bytearray(files[count % len(files)])
        for at in rng.integers(0, len(data) if count % 3 else 100, 3):
            data[at] = rng.integers(256)
        try:
            assert images.decode(data, max_pixels=1_000_000).dtype == np.uint8
        except InputError:
            refused += 1
    assert 100 < refused < 700


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"", r"0 bytes is empty"),
        (io.BytesIO(), r"'BytesIO' is empty"),
        (io.StringIO("text"), r"gave str, not bytes; open it in mode 'rb'"),
        (None, r"got NoneType"),
        (12, r"got int"),
        (["a.jpg"], r"got list"),
        ("no/such/file.jpg", r"'no/such/file.jpg' cannot be read: No such file"),
        ("bad\0name", r"cannot be read: .*null"),
        ("/", r"is a directory"),
        (np.zeros((5, 5, 3), np.float32), r"float32 \(5, 5, 3\): the scale of floats is unknown"),
        (np.zeros((5, 5, 3), np.int64), r"int64 .* \.astype\(np\.uint8\)"),
        (np.zeros((5, 5, 3), object), r"object"),
        (np.zeros((3, 50, 50), np.uint8), r"channels first"),
        (np.zeros((2, 5, 5, 3), np.uint8), r"looks like a batch"),
        (np.zeros((5, 5, 7), np.uint8), r"\(5, 5, 7\) is no image"),
        (np.zeros((0, 5, 3), np.uint8), r"no pixels \(5x0\)"),
        (PIL.Image.new("F", (4, 4)), r"mode 'F'"),
        (PIL.Image.new("RGB", (0, 4)), r"no pixels \(0x4\)"),
        (PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)), r"beyond 0..65535"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"EPS is refused: .*program"),
        (encode(photo(16, 16), "ICO"), r"ICO is refused: its size is known only after decoding"),
        (b"<html>404</html>", r"16 bytes of 16 bytes \(first: 3c 68 74 6d"),
    ],
)  # fmt: skip
def test_says_what_it_refused(source, said):
    with pytest.raises(InputError, match=said):
        images.decode(source)


def test_refuses_a_closed_or_truncated_pil_image():
    data = encode(photo(200, 300), "PNG")
    truncated = PIL.Image.open(io.BytesIO(data[: len(data) // 2]))
    closed = PIL.Image.open(io.BytesIO(data))
    closed.close()
    for source in (truncated, closed):
        with pytest.raises(InputError, match="PIL image"):
            images.decode(source)


def test_refuses_an_endless_file_without_reading_it_all():
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size=-1):
            self.taken += size
            return b"a" * size

    source = Endless()
    with pytest.raises(InputError, match="longer than"):
        images.load(source, max_pixels=1000)
    assert source.taken < 100 << 20


def test_pixel_limit_counts_pixels_of_every_source():
    data = encode(photo(), "PNG")
    for source in (data, photo(), PIL.Image.fromarray(photo()), encode(photo(), "JPEG")):
        assert images.load(source, max_pixels=37 * 53).shape == (37, 53, 3)
        with pytest.raises(InputError, match=r"53x37 = 1961 pixels, more than the limit of 1960"):
            images.load(source, max_pixels=37 * 53 - 1)


def jpeg_bomb():
    data = bytearray(encode(photo(8, 8), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data) + bytes(100_000)


def png_bomb():
    data = bytearray(encode(photo(8, 8), "PNG"))
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def gif_bomb():
    data = bytearray(encode(photo(8, 8), "GIF"))
    data[6:10] = struct.pack("<HH", 65000, 65000)
    return bytes(data)


def webp_bomb():
    data = encode(photo(8, 8), "WEBP", lossless=True)
    canvas = struct.pack("<I", 60000 - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas * 2 + data[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_bomb():
    data = bytearray(encode(photo(8, 8), "BMP"))
    data[18:26] = struct.pack("<ii", 60000, 60000)
    return bytes(data)


@pytest.mark.parametrize("bomb", [jpeg_bomb, png_bomb, gif_bomb, webp_bomb, bmp_bomb])
def test_refuses_a_bomb_without_taking_memory(bomb, tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(bomb())
    program = (
        "import resource, sys\n"
        "from trtinfer import images\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: images.decode(sys.argv[1])\n"
        "except images.InputError as error: print(error)\n"
        "print((peak() - before) // 1024)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    said, grown = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()  # fmt: skip
    assert "pixels" in said or "could not create decoder" in said  # WebP before Pillow 13
    assert int(grown) < 32  # MB


def test_large_images_within_the_limit_give_no_warning(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)  # warns above 100, raises above 200
    for kind in ("PNG", "BMP", "PPM", "JPEG"):
        data = encode(photo(), kind)
        assert images.decode(data).shape == (37, 53, 3)
    with pytest.raises(InputError, match=r"raise PIL\.Image\.MAX_IMAGE_PIXELS"):
        images.decode(encode(photo(), "TIFF"))  # Pillow's TIFF reader has a limit of its own


def test_many_threads_decode_at_once():
    files = [
        encode(photo(64 + i, 90 + i, seed=i), kind, **({"exif": tag(6)} if i % 2 else {}))
        for i, kind in enumerate(["JPEG", "PNG", "WEBP", "TIFF", "JPEG", "PNG"])
    ]
    expected = [as_pillow(data) for data in files]
    shared = [images.load(data) for data in files]
    start = threading.Barrier(8)

    def work(seed):
        start.wait()
        for i in np.random.default_rng(seed).integers(0, len(files), 40):
            np.testing.assert_array_equal(shared[i].decode(), expected[i])
            np.testing.assert_array_equal(images.decode(files[i]), expected[i])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def tag(orientation):
    block = PIL.Image.Exif()
    block[ORIENTATION] = orientation
    return block


def test_other_threads_run_while_a_jpeg_is_decoded():
    image = images.load(encode(photo(2000, 3000), "JPEG"))
    out = np.empty(image.shape, np.uint8)
    ticks, done = [], threading.Event()

    def decode():
        for _ in range(5):
            image.decode_into(out)
        done.set()

    worker = threading.Thread(target=decode)
    worker.start()
    while not done.wait(0.001):
        ticks.append(1)
    worker.join()
    assert len(ticks) >= 20  # a held GIL lets this thread run between decodes only


def test_file_is_closed_after_loading(tmp_path):
    path = Path(tmp_path / "photo.png")
    path.write_bytes(encode(photo(), "PNG"))
    image = images.load(path)
    path.unlink()
    np.testing.assert_array_equal(image.decode(), photo())
