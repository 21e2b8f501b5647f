#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "cuda/host_copy.hpp"
#include "cuda/memory.hpp"
#include "cuda/stream.hpp"
#include "pipeline/executor.hpp"
#include "pipeline/tensorrt_shared.hpp"
#include "tensorrt/execution_context.hpp"

namespace trtinfer::pipeline {

/// The memory that a lane's batches run in, one at a time: inputs, outputs, scratch; and the way of
/// the outputs from there to the requests. For one lane, on the current device.
class LaneTensors {
 public:
  /// `before_move` is called before memory becomes another one: graphs hold addresses.
  LaneTensors(const TensorRtShared& shared, const cuda::Stream& stream,
              std::function<void()> before_move);

  /// Gives the context inputs of `count` rows of these shapes, and takes memory for them and what
  /// is made of them. Throws ExecutionError for a model that cannot be run so.
  void fit(tensorrt::ExecutionContext& context, std::uint32_t count,
           const std::vector<Shape>& rows);

  /// Gives it the addresses.
  void bind(tensorrt::ExecutionContext& context) const;

  /// Rows as they were when fit() was called for `inputs`.
  void set_rows(const std::vector<Shape>& inputs, const std::vector<Shape>& outputs);

  std::vector<Shape> output_rows() const;

  std::byte* input(std::size_t index) const { return inputs_[index].device.get(); }
  std::size_t input_row_bytes(std::size_t index) const { return inputs_[index].row_bytes; }
  std::size_t input_bytes(std::uint32_t count) const;  ///< of so many rows of all inputs

  /// Has the requests take memory for outputs whose shapes were not known before.
  void place_outputs(const Batch& batch) const;

  /// Enqueues, or captures, the outputs' way to the host, which ends the run.
  void deliver(std::uint32_t count, const cuda::HostWriter& writer) const;

  /// Copies from the host to the requests what was delivered.
  void scatter(const Batch& batch) const;

  /// In place of both: enqueues copies into memory of the GPU that the requests keep.
  void keep_outputs(const Batch& batch) const;

 private:
  /// One input or output, which has rows of this shape now.
  struct Tensor {
    Shape row;
    std::size_t row_bytes = 0, capacity = 0;
    cuda::DeviceMemory device;
    cuda::PinnedMemory host;  // of outputs

    void set_row(ElementType type, Shape new_row);
    std::size_t bytes(std::uint32_t rows) const {
      return std::max<std::size_t>(row_bytes * rows, 1);
    }
    bool has_room(std::uint32_t rows) const { return bytes(rows) <= capacity; }
    void allocate(std::uint32_t rows);
  };

  void fit_scratch(tensorrt::ExecutionContext& context);
  Shape output_row(const tensorrt::ExecutionContext& context, std::uint32_t count,
                   const TensorSpec& output) const;

  const TensorRtShared& shared_;
  const cuda::Stream& stream_;
  std::function<void()> before_move_;
  std::vector<Tensor> inputs_, outputs_;
  cuda::DeviceMemory scratch_;
  std::size_t scratch_bytes_ = 0;
};

}  // namespace trtinfer::pipeline
