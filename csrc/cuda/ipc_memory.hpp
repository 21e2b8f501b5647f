// Memory of a GPU that another process made and shares.
#pragma once

#include <cstddef>
#include <span>

#include "cuda/stream.hpp"

namespace trtinfer::cuda {

// An allocation of another process, open in this one. Its maker has to keep it for as long, and to
// have finished what it writes there before it tells anyone to read. Thread-safe.
class IpcMemory {
 public:
  static constexpr std::size_t kHandleBytes = 64;  // of a cudaIpcMemHandle_t

  // Throws Error: the handle is not of that GPU, or is of this very process.
  IpcMemory(std::span<const std::byte, kHandleBytes> handle, int device);
  ~IpcMemory();
  IpcMemory(const IpcMemory&) = delete;
  IpcMemory& operator=(const IpcMemory&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  int device() const noexcept { return device_; }

  // Copy between it and host memory, and wait until that is done. Throw Error.
  void read(std::size_t offset, std::span<std::byte> to) const;
  void write(std::size_t offset, std::span<const std::byte> from) const;

 private:
  void copy(void* to, const void* from, std::size_t bytes) const;

  int device_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace trtinfer::cuda
