#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "tensorrt/abi.hpp"
#include "tensorrt/object.hpp"

namespace trtinfer::tensorrt {

/// Bytes that TensorRT allocated: a plan or a cache.
class HostMemory {
 public:
  HostMemory(const Abi& abi, Object memory)
      : memory_(std::move(memory)),
        bytes_(static_cast<const std::byte*>(abi.host_memory.data(memory_.get())),
               abi.host_memory.size(memory_.get())) {}

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  Object memory_;
  std::span<const std::byte> bytes_;
};

}  // namespace trtinfer::tensorrt
