#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pipeline/tensor_spec.hpp"
#include "ring/ring.hpp"

namespace trtinfer::pipeline {

/// Where the inputs of claimed slots lie. With static shapes every input has an array of `capacity`
/// rows, so that neighbouring slots are contiguous rows of a batch; otherwise a unit's inputs lie
/// one after the other in its block of the arena. Pages are touched only when used.
class SlotMemory {
 public:
  SlotMemory(std::vector<TensorSpec> inputs, std::uint32_t capacity, std::uint64_t arena_bytes);

  /// Arena bytes that a unit with these whole input shapes needs, 2^62 if they cannot be counted;
  /// 0 when slots are static.
  std::uint64_t unit_bytes(const std::vector<Shape>& shapes) const;

  /// Fills `pointers` with the address of each input of a unit.
  void locate(const ring::Ring& ring, ring::Unit unit, const std::vector<Shape>& shapes,
              std::vector<std::byte*>& pointers) const;

  bool is_static() const { return is_static_; }
  const std::vector<TensorSpec>& inputs() const { return inputs_; }

 private:
  struct Unmap {
    std::size_t bytes;
    void operator()(std::byte* memory) const;
  };

  std::vector<TensorSpec> inputs_;
  bool is_static_;
  std::vector<std::size_t> row_bytes_, base_;
  std::unique_ptr<std::byte, Unmap> memory_;
};

}  // namespace trtinfer::pipeline
