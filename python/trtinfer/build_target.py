"""The GPU that a plan is for: the one at hand, or with TensorRT for RTX any that is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtinfer import _core
from trtinfer.errors import BackendError

#: What a build can be given in releases 1.5 to 1.7; for every other GPU it is left open, and the
#: plan runs on what the release runs on (compute capability 9.0 among them, up to 1.6).
_RTX_TARGETS = frozenset({75, 80, 86, 89, 120, 121})


@dataclass(frozen=True)
class BuildTarget:
    """What plans are built for.

    Attributes:
        gpu: As in a key: what has to be equal for a plan to be used.
        compute_capabilities: For the builder, as 89 for 8.9; empty: not said.
    """

    gpu: str
    compute_capabilities: tuple[int, ...] = ()


def find_target(
    library: _core.TensorRtLibrary, compute_capabilities: Sequence[int] = (), device: int = 0
) -> BuildTarget:
    """Finds what to build for.

    Args:
        library: Builds the plans.
        compute_capabilities: As 89 for 8.9; empty for that of the GPU `device`.
        device: Index of a GPU.

    Raises:
        BackendError: There is no such GPU and none is named, or one is that is not at hand and the
            library builds only for one that is.
    """
    devices = _core.probe_cuda().devices
    found = devices[device] if 0 <= device < len(devices) else None
    own = found and found.compute_capability[0] * 10 + found.compute_capability[1]
    wanted = tuple(sorted(set(compute_capabilities))) or ((own,) if own else ())
    if not wanted:
        raise BackendError(_missing(library, device))
    if library.is_rtx:
        named = wanted if _RTX_TARGETS.issuperset(wanted) else ()
        return BuildTarget(" ".join(map(capability_text, wanted)), named)
    if found is None or wanted != (own,):
        raise BackendError(
            f"TensorRT {library.version} builds for the GPU at hand only, not for compute "
            f"capability {', '.join(map(capability_text, wanted))}; "
            "TensorRT for RTX (trtinfer[tensorrt-rtx]) can build for others"
        )
    return BuildTarget(f"{found.name} {capability_text(wanted[0])}")


def capability_text(number: int) -> str:
    """8.9 for 89."""
    return f"{number // 10}.{number % 10}"


def parse_capability(text: str) -> int:
    """89 for 8.9.

    Raises:
        ValueError: It is no compute capability.
    """
    major, dot, minor = text.strip().partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(minor) == 1):
        raise ValueError(f"{text!r} is no compute capability; give one like 8.9 or 12.0")
    return int(major) * 10 + int(minor)


def _missing(library: _core.TensorRtLibrary, device: int) -> str:
    probe = _core.probe_cuda()
    reason = probe.reason or f"there are {len(probe.devices)}"
    advice = "name a compute capability" if library.is_rtx else "build on the machine with the GPU"
    return f"there is no GPU {device} to build plans for ({reason}); {advice}"
