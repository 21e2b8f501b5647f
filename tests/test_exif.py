"""EXIF orientation: read from both byte orders, applied as Pillow applies it."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from trtinfer import exif


def block(order, entries):
    """A TIFF structure with one directory of (tag, kind, count, value)."""
    mark = {"<": b"II", ">": b"MM"}[order]
    body = b"".join(struct.pack(order + "HHIHH", *entry, 0) for entry in entries)
    return mark + struct.pack(order + "HIH", 42, 8, len(entries)) + body


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_reads_both_byte_orders_with_and_without_prefix(order, prefix):
    entries = [(0x0100, 3, 1, 640), (0x0112, 3, 1, 6)]
    assert exif.orientation(prefix + block(order, entries)) == 6


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"II",
        b"XX*\0\x08\0\0\0",
        block("<", [(0x0112, 3, 1, 9)]),
        block("<", [(0x0112, 3, 1, 0)]),
        block("<", [(0x0112, 7, 1, 6)]),
        block("<", [(0x0112, 3, 1, 6)])[:-4],
        block("<", []),
    ],
)
def test_damaged_block_means_upright(damaged):
    assert exif.orientation(damaged) == exif.UPRIGHT


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_as_pillow_does(orientation):
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = PIL.Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(exif.upright(stored, orientation), expected)
    assert exif.swaps_sides(orientation) == (expected.shape == (3, 2, 3))


def test_finds_the_exif_segment_behind_others():
    buffer = io.BytesIO()
    segment = b"Exif\0\0" + block(">", [(0x0112, 3, 1, 8)])
    image = PIL.Image.new("RGB", (8, 8))
    image.save(buffer, "JPEG", exif=segment, icc_profile=b"p" * 3000, comment=b"c")
    plain = buffer.getvalue()
    behind = plain[:2] + b"\xff\xe5\x00\x0afirst...\xff" + plain[2:]  # APP5, then a fill byte
    assert exif.jpeg_orientation(plain) == 8
    assert exif.jpeg_orientation(memoryview(behind)) == 8


def test_stops_at_the_end_of_a_short_file():
    for length in range(12):
        data = b"\xff\xd8\xff\xe1\x00\x20Exif\0\0"[:length]
        assert exif.jpeg_orientation(data) == exif.UPRIGHT
