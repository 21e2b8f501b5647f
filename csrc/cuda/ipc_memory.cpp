#include "cuda/ipc_memory.hpp"

#include <cstdint>
#include <cstring>
#include <exception>

#include "cuda/error.hpp"
#include "cuda/handover.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#endif

namespace trtinfer::cuda {

#if TRTINFER_CUDA

namespace {

// Bytes from `memory` to the end of its allocation, which only the driver's interface tells.
std::size_t bytes_after(const std::byte* memory) {
  using GetRange = int (*)(std::uintptr_t*, std::size_t*, std::uintptr_t);
  static const auto get_range = reinterpret_cast<GetRange>(
      ::dlsym(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL), "cuMemGetAddressRange_v2"));
  if (get_range == nullptr) throw Error(kStubLibrary, "looking for cuMemGetAddressRange");
  std::uintptr_t base = 0;
  std::size_t size = 0;
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  check(get_range(&base, &size, address), "cuMemGetAddressRange");
  return base + size - address;
}

}  // namespace

IpcMemory::IpcMemory(std::span<const std::byte, kHandleBytes> handle, int device)
    : device_(device) {
  static_assert(sizeof(cudaIpcMemHandle_t) == kHandleBytes);
  const CurrentDevice current(device);
  cudaIpcMemHandle_t opened{};
  std::memcpy(&opened, handle.data(), sizeof opened);
  void* memory = nullptr;
  check(cudaIpcOpenMemHandle(&memory, opened, cudaIpcMemLazyEnablePeerAccess),
        "cudaIpcOpenMemHandle");
  data_ = static_cast<std::byte*>(memory);
  try {
    size_ = bytes_after(data_);
  } catch (...) {
    cudaIpcCloseMemHandle(memory);
    throw;
  }
}

IpcMemory::~IpcMemory() {
  try {
    const CurrentDevice current(device_);
    cudaIpcCloseMemHandle(data_);
  } catch (const std::exception&) {  // the GPU has failed: nothing of it can be given back
    return;
  }
}

#else

IpcMemory::IpcMemory(std::span<const std::byte, kHandleBytes> /*handle*/, int device)
    : device_(device) {
  throw Error(kNoDevice, "a build without CUDA");
}

IpcMemory::~IpcMemory() {}  // none was ever made

#endif

void IpcMemory::read(std::size_t offset, std::span<std::byte> to) const {
  copy(to.data(), data_ + offset, to.size());
}

void IpcMemory::write(std::size_t offset, std::span<const std::byte> from) const {
  copy(data_ + offset, from.data(), from.size());
}

// A stream's synchronization is needed: a plain copy from pageable memory may return before it is
// over.
void IpcMemory::copy(void* to, const void* from, std::size_t bytes) const {
  const CurrentDevice current(device_);
  const HandoverStream stream;
  copy_async(to, from, bytes, stream.get());
  stream.get().synchronize();
}

}  // namespace trtinfer::cuda
