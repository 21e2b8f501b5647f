#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "pipeline/slot_copy.hpp"
#include "pipeline/tensor_spec.hpp"
#include "ring/ring.hpp"

namespace trtinfer::pipeline {

/// Where the inputs of claimed slots lie. With static shapes every input has an array of `capacity`
/// rows, so that neighbouring slots are contiguous rows of a batch; otherwise a unit's inputs lie
/// one after the other in its block of the arena. Pages that are not pinned are touched only when
/// used.
class SlotMemory {
 public:
  /// Memory for a `gpu` is pinned: it is all there from the start, near that GPU. Throws
  /// std::bad_alloc, cuda::Error.
  SlotMemory(std::vector<TensorSpec> inputs, std::uint32_t capacity, std::uint64_t arena_bytes,
             std::optional<int> gpu);

  /// Arena bytes that a unit with these whole input shapes needs, 2^62 if they cannot be counted;
  /// 0 when slots are static.
  std::uint64_t unit_bytes(const std::vector<Shape>& shapes) const;

  /// Fills `pointers` with the address of each input of a unit.
  void locate(const ring::Ring& ring, ring::Unit unit, const std::vector<Shape>& shapes,
              std::vector<std::byte*>& pointers) const;

  /// How to fill slots.
  Stores stores() const { return for_gpu_ ? Stores::kStreaming : Stores::kCached; }

  bool is_static() const { return is_static_; }
  const std::vector<TensorSpec>& inputs() const { return inputs_; }

 private:
  std::vector<TensorSpec> inputs_;
  bool is_static_, for_gpu_;
  std::vector<std::size_t> row_bytes_, base_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace trtinfer::pipeline
