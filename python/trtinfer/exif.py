"""The EXIF orientation tag: how a camera was held, read from bytes and applied to an array."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

UPRIGHT = 1
_ORIENTATION_TAG = 0x0112
_SHORT = 3
_JPEG_APP1, _JPEG_START_OF_SCAN = 0xE1, 0xDA
_EXIF_PREFIX = b"Exif\0\0"


def orientation(exif: bytes) -> int:
    r"""Reads the orientation from an EXIF block.

    Args:
        exif: A TIFF structure, with or without the `Exif\0\0` that JPEG puts before it.

    Returns:
        1 to 8 as in EXIF 2.32, section 4.6.4; 1 (upright) where the tag is absent or damaged,
        because a damaged tag is no reason to refuse a good picture.
    """
    tiff = exif[len(_EXIF_PREFIX) :] if exif.startswith(_EXIF_PREFIX) else exif
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            at = directory + 2 + 12 * entry
            tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, at)
            if tag == _ORIENTATION_TAG:
                known = kind == _SHORT and count == 1 and 1 <= value <= 8
                return int(value) if known else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


def jpeg_orientation(data: bytes | memoryview) -> int:
    """Reads the orientation of a JPEG file from its EXIF segment, without decoding anything.

    Args:
        data: The file; a memoryview has one byte an item.

    Returns:
        As `orientation`.
    """
    at = 2  # after the start-of-image marker
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _JPEG_START_OF_SCAN:
            break
        length = data[at + 2] << 8 | data[at + 3]
        if marker == _JPEG_APP1 and data[at + 4 : at + 10] == _EXIF_PREFIX:
            return orientation(bytes(data[at + 4 : at + 2 + length]))
        at += 2 + length
    return UPRIGHT


def swaps_sides(value: int) -> bool:
    """Whether an upright image of this orientation has the stored width as its height."""
    return value >= 5


def upright(stored: npt.NDArray[np.uint8], value: int) -> npt.NDArray[np.uint8]:
    """Turns a stored image upright.

    Args:
        stored: Height x width (x channels), as the file holds it.
        value: The orientation, 1 to 8.

    Returns:
        A view, height and width exchanged where `swaps_sides` says so.
    """
    turned = stored.swapaxes(0, 1) if swaps_sides(value) else stored
    if value in (3, 4, 7, 8):
        turned = turned[::-1]
    if value in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned
