#pragma once

#include <cstddef>

#include "cuda/stream.hpp"

namespace trtinfer::pipeline {

/// Bytes on a GPU that a unit is read from in place of its slots: contiguous blocks at equal
/// distances. Borrowed: the request's payload keeps memory and event alive.
struct DeviceInput {
  const std::byte* data = nullptr;                      ///< null: this input lies in the slots
  std::size_t blocks = 1, block_bytes = 0, stride = 0;  ///< stride in bytes; any if `blocks` is 1
  int device = 0;                                       ///< the GPU that it lies on
  const cuda::Event* ready = nullptr;  ///< the producer's work is done then; null: it was before

  std::size_t bytes() const { return blocks * block_bytes; }
};

/// Enqueues a copy that starts once the input is ready; its blocks are put `to_stride` bytes apart.
/// Throws BatchError if it cannot be read, cuda::Error.
void copy_async(const DeviceInput& input, std::byte* to, std::size_t to_stride,
                const cuda::Stream& stream);

/// Copies to host memory, without gaps, and waits until the bytes are there. Likewise.
void fetch(const DeviceInput& input, std::byte* to);

}  // namespace trtinfer::pipeline
