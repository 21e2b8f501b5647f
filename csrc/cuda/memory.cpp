#include "cuda/memory.hpp"

#include <array>
#include <string>

#include "cuda/error.hpp"
#include "cuda/numa.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace trtinfer::cuda {

#if TRTINFER_CUDA

namespace {

int node_of_current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  std::array<char, 32> address{};
  check(cudaDeviceGetPCIBusId(address.data(), static_cast<int>(address.size()), device),
        "cudaDeviceGetPCIBusId");
  return numa_node(address.data());
}

}  // namespace

void FreeDevice::operator()(std::byte* memory) const noexcept { cudaFree(memory); }

void FreePinned::operator()(std::byte* memory) const noexcept { cudaFreeHost(memory); }

DeviceMemory allocate_device(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "cudaMalloc of " + std::to_string(bytes) + " bytes");
  return DeviceMemory(static_cast<std::byte*>(memory));
}

PinnedMemory allocate_pinned(std::size_t bytes) {
  const PreferredNode near(node_of_current_device());
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable),
        "cudaHostAlloc of " + std::to_string(bytes) + " bytes");
  return PinnedMemory(static_cast<std::byte*>(memory));
}

std::optional<int> device_of(const void* memory) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, memory), "cudaPointerGetAttributes");
  if (attributes.type == cudaMemoryTypeUnregistered) return std::nullopt;
  return attributes.device;
}

MemoryInfo memory_info() {
  MemoryInfo info;
  check(cudaMemGetInfo(&info.free, &info.total), "cudaMemGetInfo");
  return info;
}

#else

void FreeDevice::operator()(std::byte*) const noexcept {}

void FreePinned::operator()(std::byte*) const noexcept {}

DeviceMemory allocate_device(std::size_t) { throw Error(kNoDevice, "a build without CUDA"); }

PinnedMemory allocate_pinned(std::size_t) { throw Error(kNoDevice, "a build without CUDA"); }

std::optional<int> device_of(const void*) { throw Error(kNoDevice, "a build without CUDA"); }

MemoryInfo memory_info() { throw Error(kNoDevice, "a build without CUDA"); }

#endif

}  // namespace trtinfer::cuda
