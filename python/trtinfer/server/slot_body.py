"""A body that is read from the socket straight into claimed slots of its model."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

import numpy as np

from trtinfer.ring import Slot
from trtinfer.types import Outputs, Timeline


class Reads(Protocol):
    """A model, as far as bodies look at it.

    Attributes:
        reading: Samples whose slots are claimed while their bytes come.
    """

    reading: int


class SlotBody:
    """The elements of a model's only input, which lie where the backend will read them.

    The slots go back when this object goes, unless they were published.

    Attributes:
        model: Whose slots they are.
        room: Their bytes; not to be touched after `ainfer`.
        document: The JSON that came before them; empty where there was none.
    """

    def __init__(self, model: Reads, slot: Slot, samples: int) -> None:
        """Take over slots that were claimed for so many samples."""
        (view,) = slot.inputs.values()
        self.model = model
        self.room = view.reshape(-1).view(np.uint8).data
        self.document: dict[str, Any] = {}
        self._slot = slot
        self._samples = samples
        model.reading += samples

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return len(self.room)

    def __del__(self) -> None:
        """No longer count as being read."""
        self.model.reading -= self._samples

    def ainfer(
        self, timeout: float | None, priority: int = 0, *, timeline: Timeline | None = None
    ) -> Coroutine[Any, Any, Outputs]:
        """Answer what was read; as `Slot.ainfer`."""
        return self._slot.ainfer(timeout, priority, timeline=timeline)
