"""Images in: any picture that a user hands over becomes height x width x 3 RGB bytes.

`load` reads the header only and refuses what can be refused there; the pixels are decoded later,
straight into memory that the caller chooses. Pixels are those of Pillow's `convert("RGB")` after
its `exif_transpose`, except that 16-bit gray keeps its high byte instead of being clipped.
"""

from __future__ import annotations

import abc
import io
import os
import stat
import struct
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageFile

from trtinfer import device_tensor, exif
from trtinfer.errors import InputError

try:
    import simplejpeg
except ImportError:  # no wheels for free-threaded Python yet; Pillow decodes the same pixels
    simplejpeg = None

MAX_PIXELS = 100_000_000

Pixels: TypeAlias = npt.NDArray[np.uint8]
Encoded: TypeAlias = bytes | memoryview  # of one byte an item

_JPEG_MAGIC = b"\xff\xd8\xff"
# RGB and gray out of these are bit-identical to Pillow's; CMYK and YCCK are not.
_SIMPLEJPEG_COLORSPACES = ("YCbCr", "Gray", "RGB")
_REFUSED_FORMATS = {
    "EPS": "reading it runs another program",
    "WMF": "reading it runs another program",
    "ICO": "its size is known only after decoding",
    "ICNS": "its size is known only after decoding",
}
# Neither has a range of values that every writer agrees on.
_MODES_WITHOUT_RANGE = ("F", "LAB")
# No pixel format takes more than 8 bytes a pixel; the rest is room for metadata.
_BYTES_PER_PIXEL, _METADATA_BYTES, _CHUNK_BYTES = 8, 64 << 20, 1 << 20
_ACCEPTED = (
    "pass a path, the bytes of an image file, a binary file object, a NumPy array "
    "(height x width x 3, uint8, RGB) or a PIL image"
)


class Image(abc.ABC):
    """A picture whose header was read and accepted, and whose pixels are not decoded yet.

    Immutable: any thread may decode it, as often as it likes. It borrows what it was made from (a
    buffer, an array, a PIL image), which must not change before the last decode.

    Attributes:
        shape: (height, width, 3) of the decoded image, after its EXIF orientation.
    """

    def __init__(self, name: str, height: int, width: int) -> None:
        """Stores what every kind of image has; `load` is the way to make one."""
        self.name = name
        self.shape = (height, width, 3)

    def decode_into(self, out: Pixels) -> None:
        """Decodes into memory of the caller; other threads run meanwhile.

        Args:
            out: C-contiguous, writable uint8 array of `shape`; its contents are undefined after an
                error.

        Raises:
            InputError: The pixel data is truncated or damaged, or `out` does not fit.
        """
        fits = out.shape == self.shape and out.dtype == np.uint8
        if not (fits and out.flags.c_contiguous and out.flags.writeable):
            raise InputError(
                f"{self.name} needs a writable C-contiguous uint8 buffer of shape {self.shape}, "
                f"got {out.dtype} {out.shape}; pass np.empty(image.shape, np.uint8)"
            )
        try:
            self._fill(out)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # decoders raise anything from OSError to struct.error
            advice = "the file is truncated or damaged, send it again"
            if isinstance(error, PIL.Image.DecompressionBombError):
                advice = "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
            raise InputError(f"{self.name} cannot be decoded: {error}; {advice}") from error

    def decode(self) -> Pixels:
        """Decodes into a new array; see `decode_into`."""
        out = np.empty(self.shape, np.uint8)
        self.decode_into(out)
        return out

    @abc.abstractmethod
    def _fill(self, out: Pixels) -> None:
        """Writes every pixel of `out`, which is known to fit."""


class _JpegImage(Image):
    """A JPEG file that simplejpeg reads; upright ones are decoded in place."""

    def __init__(self, name: str, data: Encoded, stored: tuple[int, int]) -> None:
        self._data, self._stored = data, stored
        self._orientation = exif.jpeg_orientation(data)
        super().__init__(name, *_upright_size(stored, self._orientation))

    def _fill(self, out: Pixels) -> None:
        if self._orientation == exif.UPRIGHT:
            simplejpeg.decode_jpeg(self._data, "RGB", buffer=out)
        else:
            _copy(exif.upright(simplejpeg.decode_jpeg(self._data, "RGB"), self._orientation), out)


class _FileImage(Image):
    """Any other file, read by Pillow; each decode opens it anew, so that threads share nothing."""

    def __init__(self, name: str, data: Encoded) -> None:
        self._data = data
        with _open(data, name) as image:
            _refuse_mode(image.mode, name)
            self._orientation = _orientation_of_file(image)
            super().__init__(name, *_upright_size((image.height, image.width), self._orientation))

    def _fill(self, out: Pixels) -> None:
        with _open(self._data, self.name) as image:
            _copy(exif.upright(_rgb(image, self.name), self._orientation), out)


class _PillowImage(Image):
    """A PIL image that the user made or opened."""

    def __init__(self, image: PIL.Image.Image) -> None:
        name = f"PIL image (mode {image.mode}, {image.width}x{image.height})"
        _refuse_mode(image.mode, name)
        self._image = image
        # Pillow turns a TIFF upright itself while loading it, and its size says so before.
        is_tiff = image.format == "TIFF"
        self._orientation = exif.UPRIGHT if is_tiff else _orientation_of_pillow(image, name)
        super().__init__(name, *_upright_size((image.height, image.width), self._orientation))

    def _fill(self, out: Pixels) -> None:
        _copy(exif.upright(_rgb(self._image, self.name), self._orientation), out)


class _ArrayImage(Image):
    """Pixels in memory: uint8, uint16 (its high byte) or bool; RGB, RGBA, gray or gray + alpha."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        name = f"array of {array.dtype} {array.shape}"
        _refuse_array(array, name)
        self._array = array
        super().__init__(name, array.shape[0], array.shape[1])

    def _fill(self, out: Pixels) -> None:
        _copy(_to_uint8(self._array), out)


def load(source: object, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Reads and checks an image's header; nothing is decoded.

    Args:
        source: A path, the bytes of an image file (bytes, bytearray, memoryview, 1-D uint8 array),
            a binary file object (read from where it stands), a NumPy array (height x width,
            optionally x 1 to 4 channels: gray, gray + alpha, RGB, RGBA; uint8, uint16 or bool), a
            PIL image, or an `Image`. Alpha is dropped; of an animation the first frame is taken.
        max_pixels: Refuse images of more pixels than this, before any memory is taken for them.
            Pillow's readers of TIFF, WebP and GIF have a limit of their own besides, twice
            `PIL.Image.MAX_IMAGE_PIXELS` (179 MP), and warn above once that.

    Returns:
        The image, ready to decode.

    Raises:
        InputError: It is missing, empty, truncated in its header, of an unknown or refused kind,
            or larger than `max_pixels`.
    """
    image = source if isinstance(source, Image) else _read(source, max_pixels)
    _refuse_size(image.name, *image.shape[:2], max_pixels)
    return image


def decode(source: object, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Loads and decodes an image: height x width x 3, uint8, RGB; see `load`."""
    return load(source, max_pixels=max_pixels).decode()


def _read(source: object, max_pixels: int) -> Image:
    if isinstance(source, np.ndarray):
        if source.ndim == 1 and source.dtype == np.uint8:
            return _from_file(np.ascontiguousarray(source).data, f"{source.size} bytes")
        return _ArrayImage(source)
    if (array := device_tensor.as_array(source)) is not None:
        return _ArrayImage(array)
    if isinstance(source, PIL.Image.Image):
        _refuse_size("PIL image", source.height, source.width, max_pixels)
        return _PillowImage(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_file(_flat(source), f"{memoryview(source).nbytes} bytes")
    limit = max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(os.fsdecode(source)), limit)
    if callable(getattr(source, "read", None)):
        name = f"file object {str(getattr(source, 'name', type(source).__name__))!r}"
        return _from_file(_contents(source, name, limit), name)  # type: ignore[arg-type]
    raise InputError(f"got {type(source).__name__}, which is no image; {_ACCEPTED}")


def _from_path(path: Path, limit: int) -> Image:
    name = f"file {str(path)!r}"
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise InputError(f"{name} is a directory; pass the images inside it one by one")
        with path.open("rb") as file:
            return _from_file(_contents(file, name, limit), name)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name} cannot be read: {reason}; check the path") from error


def _contents(file: IO[bytes], name: str, limit: int) -> bytes:
    """Reads a file to its end, or refuses one that is too long to be an image (/dev/zero)."""
    chunks: list[bytes] = []
    length = 0
    try:
        while chunk := file.read(_CHUNK_BYTES):
            if not isinstance(chunk, bytes):
                got = type(chunk).__name__
                raise InputError(f"{name} gave {got}, not bytes; open it in mode 'rb'")
            chunks.append(chunk)
            length += len(chunk)
            if length > limit:
                raise InputError(f"{name} is longer than {limit} bytes, which no image needs")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read: {error}; pass an open binary file") from error
    return b"".join(chunks)


def _flat(data: Encoded | bytearray) -> Encoded:
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def _from_file(data: Encoded, name: str) -> Image:
    if len(data) == 0:
        raise InputError(f"{name} is empty (0 bytes); pass a complete image file")
    if simplejpeg is not None and data[:3] == _JPEG_MAGIC:
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:  # unusual subsampling, or garbage: Pillow can tell
            return _FileImage(name, data)
        if colorspace in _SIMPLEJPEG_COLORSPACES:
            return _JpegImage(name, data, (height, width))
    return _FileImage(name, data)


def _open(data: Encoded, name: str) -> PIL.ImageFile.ImageFile:
    """Opens a file as `PIL.Image.open` does, but without its own pixel limit.

    That limit is global to the process, and it warns below the point where it raises; `load` checks
    the size right after this.
    """
    prefix, failure = bytes(data[:16]), "the format is unknown"
    for find_plugins in (PIL.Image.preinit, PIL.Image.init):
        find_plugins()
        for kind in list(PIL.Image.ID):
            factory, accept = PIL.Image.OPEN[kind]
            try:
                verdict = accept is None or accept(prefix)
                if not verdict or isinstance(verdict, str):  # a string: a library is missing
                    continue
                if kind in _REFUSED_FORMATS:
                    failure = f"{kind} is refused: {_REFUSED_FORMATS[kind]}"
                    continue
                return factory(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # as Pillow: not this format after all
            except MemoryError:
                raise
            except Exception as error:
                failure = f"as {kind}: {error}"
    start = bytes(data[:8]).hex(" ")
    raise InputError(
        f"{name} of {len(data)} bytes (first: {start}) is not a readable image, {failure}; "
        "pass a complete JPEG, PNG, WebP, GIF, TIFF, BMP or other file that Pillow reads"
    )


def _orientation_of_file(image: PIL.ImageFile.ImageFile) -> int:
    """Only what stands before the pixels; Pillow's own `getexif` would decode a PNG to look on."""
    block = image.info.get("exif")
    return exif.orientation(block) if isinstance(block, bytes) else exif.UPRIGHT


def _orientation_of_pillow(image: PIL.Image.Image, name: str) -> int:
    try:
        value = image.getexif().get(0x0112, exif.UPRIGHT)
    except Exception as error:
        raise InputError(f"{name} cannot be loaded: {error}; open it again") from error
    return value if value in range(1, 9) else exif.UPRIGHT


def _upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (stored[1], stored[0]) if exif.swaps_sides(orientation) else stored


def _refuse_size(name: str, height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise InputError(f"{name} has no pixels ({width}x{height}); pass at least 1x1")
    if height * width > max_pixels:
        raise InputError(
            f"{name} has {width}x{height} = {height * width} pixels, more than the limit of "
            f"{max_pixels}; make it smaller, or raise max_pixels"
        )


def _refuse_mode(mode: str, name: str) -> None:
    if mode in _MODES_WITHOUT_RANGE:
        raise InputError(f"{name} has mode {mode!r}, whose scale is unknown; convert it to 'RGB'")


def _refuse_array(array: npt.NDArray[Any], name: str) -> None:
    if array.dtype.kind == "f":
        raise InputError(f"{name}: the scale of floats is unknown; pass uint8 from 0 to 255")
    if array.dtype not in (np.uint8, np.uint16, np.bool_):
        raise InputError(f"{name}: only uint8, uint16 and bool are pixels; use .astype(np.uint8)")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        raise InputError(f"{name} looks like channels first; use .transpose(1, 2, 0)")
    if array.ndim == 4:
        raise InputError(f"{name} looks like a batch; pass its images one by one")
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise InputError(f"{name} is no image; pass height x width (x 1, 2, 3 or 4 channels)")


def _to_uint8(array: npt.NDArray[Any]) -> Pixels:
    if array.dtype == np.uint16:
        high: Pixels = (array >> 8).astype(np.uint8)
        return high
    return array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array


def _rgb(image: PIL.Image.Image, name: str) -> Pixels:
    """Decodes and converts to height x width (gray) or height x width x 3."""
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if image.mode == "I" and (wide.min() < 0 or wide.max() > 0xFFFF):
            raise InputError(f"{name} has 32-bit values beyond 0..65535; scale it to 8 bits")
        return (wide >> 8).astype(np.uint8)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colors, without a warning about the alpha
    return np.asarray(image.convert("RGB"))


def _copy(pixels: Pixels, out: Pixels) -> None:
    """Copies gray, gray + alpha, RGB or RGBA into RGB of the same height and width."""
    if pixels.ndim == 3 and pixels.shape[2] <= 2:
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        np.copyto(out, pixels[..., np.newaxis])
    elif pixels.shape[2] == 3 and pixels.strides[2] == 1:
        np.copyto(out.view("V3"), pixels.view("V3"))  # 3 x faster when turned: whole pixels move
    else:
        np.copyto(out, pixels[..., :3])
