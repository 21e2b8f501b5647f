"""A GPU through libcuda, also for what trtinfer never does: to fill it, to hold it, to ruin it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

# Takes 20 s at most. Thread 0 of a block looks at the flag; the others only take their place.
_HOLD_THEN_TRAP = b"""
.version 6.4
.target sm_75
.address_size 64
.visible .entry hold_then_trap(.param .u64 flag)
{
  .reg .pred %stop;
  .reg .u32 %value;
  .reg .u64 %address, %now, %end;
  mov.u32 %value, %tid.x;
  setp.ne.u32 %stop, %value, 0;
  @%stop bra LEAVE;
  ld.param.u64 %address, [flag];
  mov.u64 %now, %globaltimer;
  add.u64 %end, %now, 20000000000;
WAIT:
  nanosleep.u32 1000;
  ld.volatile.global.u32 %value, [%address];
  setp.ne.u32 %stop, %value, 0;
  @%stop bra TRAP;
  mov.u64 %now, %globaltimer;
  setp.lt.u64 %stop, %now, %end;
  @%stop bra WAIT;
LEAVE:
  bar.sync 0;
  ret;
TRAP:
  trap;
  ret;
}
"""
_BLOCKS, _THREADS = 4096, 1024  # more than any GPU runs at a time, so that nothing else finds room
_MAPPED = 3  # CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP


class Gpu:
    """Memory and a stream of a device, in the context that trtinfer uses too."""

    def __init__(self, device: int = 0) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), 1)
        self.stream = stream.value or 0

    def call(self, name: str, *arguments: object) -> None:
        error = getattr(self.cuda, name)(*arguments)
        assert error == 0, f"{name} failed with CUDA error {error}"

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 256)))
        return address.value

    def free(self, *addresses: int) -> None:
        for address in addresses:
            self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def fill(self) -> list[int]:
        """Takes all memory that is free, in ever smaller pieces; returns their addresses."""
        pieces, size = [], 1 << 34
        while size >= 1 << 12:
            address = ctypes.c_uint64()
            if self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)) == 0:
                pieces.append(address.value)
            else:
                size //= 2
        return pieces

    def upload(self, array: np.ndarray) -> int:
        address = self.allocate(array.nbytes)
        self.write(address, array)
        return address

    def write(self, address: int, array: np.ndarray) -> None:
        """Other processes see it, too: a copy of pageable memory may return before it is over."""
        size = ctypes.c_size_t(array.nbytes)
        self.call(
            "cuMemcpyHtoD_v2", ctypes.c_uint64(address), array.ctypes.data_as(ctypes.c_void_p), size
        )
        self.call("cuCtxSynchronize")

    def download(self, address: int, array: np.ndarray) -> np.ndarray:
        size = ctypes.c_size_t(array.nbytes)
        self.call(
            "cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(address), size
        )
        return array

    def synchronize(self) -> None:
        self.call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def hold(self) -> Callable[[], None]:
        """Keeps every multiprocessor busy; what is launched later waits.

        Returns:
            A function that makes the kernel trap, after which this process has no use of the GPU.
        """
        module, kernel, memory = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), _HOLD_THEN_TRAP)
        self.call("cuModuleGetFunction", ctypes.byref(kernel), module, b"hold_then_trap")
        self.call("cuMemHostAlloc", ctypes.byref(memory), ctypes.c_size_t(4), _MAPPED)
        flag = ctypes.c_uint32.from_address(memory.value or 0)
        flag.value = 0
        address = ctypes.c_uint64(memory.value or 0)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(address))
        self.call(
            "cuLaunchKernel",
            *(kernel, _BLOCKS, 1, 1, _THREADS, 1, 1),
            *(0, ctypes.c_void_p(self.stream), parameters, None),
        )

        def trap() -> None:
            flag.value = 1

        return trap
