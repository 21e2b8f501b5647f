"""A body that is read from the socket straight into claimed slots of its model."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from trtinfer.ring import Slot
from trtinfer.types import Outputs


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
    """

    def __init__(self, model: Reads, slot: Slot, samples: int) -> None:
        """Take over slots that were claimed for so many samples."""
        (view,) = slot.inputs.values()
        self.model = model
        self.room = view.reshape(-1).view(np.uint8).data
        self._slot = slot
        self._samples = samples
        model.reading += samples

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return len(self.room)

    def __del__(self) -> None:
        """No longer count as being read."""
        self.model.reading -= self._samples

    async def ainfer(self, timeout: float | None, priority: int = 0) -> Outputs:
        """Answer what was read; as `Slot.ainfer`."""
        return await self._slot.ainfer(timeout, priority)
