// Device and pinned host memory, each block with one owner.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

namespace trtinfer::cuda {

// Frees with the CUDA runtime; a failure is ignored, since owners die while errors unwind.
struct FreeDevice {
  void operator()(std::byte* memory) const noexcept;
};
struct FreePinned {
  void operator()(std::byte* memory) const noexcept;
};

// Bytes on the current GPU. Move-only.
using DeviceMemory = std::unique_ptr<std::byte, FreeDevice>;

// Host bytes that GPUs read and write by the same address, near the current one. Move-only.
using PinnedMemory = std::unique_ptr<std::byte, FreePinned>;

// Throw Error, naming the size, when there is not enough.
DeviceMemory allocate_device(std::size_t bytes);
PinnedMemory allocate_pinned(std::size_t bytes);

// The GPU that an address belongs to: of its own memory, of managed memory, or of pinned host
// memory; nothing for other memory. Throws Error.
std::optional<int> device_of(const void* memory);

// Free and total bytes of the current GPU.
struct MemoryInfo {
  std::size_t free = 0, total = 0;
};
MemoryInfo memory_info();

}  // namespace trtinfer::cuda
