#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "tensorrt/engine.hpp"
#include "tensorrt/object.hpp"
#include "tensorrt/runtime_cache.hpp"

namespace trtinfer::tensorrt {

struct ContextOptions {
  Allocation allocation = Allocation::kStatic;
  // Both for TensorRT-RTX, ignored elsewhere. Eager, since a graph captured with a kernel that is
  // to be replaced later keeps that kernel for ever.
  Specialization specialization = Specialization::kEager;
  std::shared_ptr<RuntimeCache> cache;
};

/// One in-flight use of an engine: shapes, addresses, scratch memory. For one thread at a time, on
/// the CUDA device on which the engine was opened. Streams and events are CUDA's own handles. Every
/// function throws Error with TensorRT's reason.
class ExecutionContext {
 public:
  explicit ExecutionContext(std::shared_ptr<const Engine> engine, ContextOptions options = {});
  ExecutionContext(ExecutionContext&&) = default;

  const Engine& engine() const { return *engine_; }

  void set_profile(std::int32_t profile, void* stream);
  void set_input_shape(const char* name, const Shape& shape);
  /// As far as the inputs' shapes decide it; -1 elsewhere.
  Shape tensor_shape(const char* name) const;
  /// Memory of the device, or of the host for a tensor that is_on_host.
  void set_address(const char* name, void* address);
  /// Checks that every shape and shape tensor is set.
  void infer_shapes();
  /// Recorded in every enqueue when the inputs may be overwritten; null for none.
  void set_input_consumed_event(void* event);
  void enqueue(void* stream);

  /// Only for Allocation::kUserManaged: bytes needed at the present shapes, and the memory.
  std::size_t required_device_memory();
  void set_device_memory(void* memory, std::size_t bytes);

 private:
  const Abi& abi() const { return engine_->library().abi(); }
  void require(bool done, const std::string& what, std::uint64_t mark) const;
  std::uint64_t mark() const { return engine_->library().logger().mark(); }

  std::shared_ptr<const Engine> engine_;
  std::shared_ptr<RuntimeCache> cache_;
  Object config_;  // null without TensorRT-RTX
  Object context_;
};

}  // namespace trtinfer::tensorrt
