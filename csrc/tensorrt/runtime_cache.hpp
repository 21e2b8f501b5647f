#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "tensorrt/engine.hpp"
#include "tensorrt/host_memory.hpp"
#include "tensorrt/object.hpp"

namespace trtinfer::tensorrt {

/// The kernels that TensorRT-RTX compiled just in time, shared by the contexts of many engines.
/// Contexts that were made with it keep it alive; it outlives the engine that it was made of.
class RuntimeCache {
 public:
  /// Empty. Throws Error for a library that is not TensorRT-RTX.
  explicit RuntimeCache(const Engine& engine);

  void* interface() const { return cache_.get(); }
  /// Takes what serialize() gave; false when TensorRT-RTX does not want it (another GPU or
  /// release).
  bool deserialize(std::span<const std::byte> bytes);
  HostMemory serialize() const;

 private:
  const Library& library_;
  Object cache_;
};

}  // namespace trtinfer::tensorrt
