// How Python values and a session's tensors correspond.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "bindings/device_tensor.hpp"
#include "pipeline/pipeline.hpp"
#include "pipeline/request.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::bindings {

/// The arrays of one request, ready to be copied into slots.
struct ParsedInputs {
  std::uint32_t rows = 1;
  bool has_batch_axis = false;
  std::vector<pybind11::array> arrays;  // in the model's order, C-contiguous; null: on a GPU

  /// In the model's order, null for the arrays; empty if nothing lies on a GPU.
  std::vector<std::shared_ptr<const DeviceTensor>> device_tensors;

  bool any_on_gpu() const { return !device_tensors.empty(); }
};

/// Names, dtypes and shapes of a session's inputs and outputs. Used with the GIL held; immutable.
class Layout {
 public:
  struct Tensor {
    pipeline::TensorSpec spec;
    pybind11::str name;
    pybind11::dtype dtype;
  };

  Layout(std::vector<Tensor> inputs, std::vector<Tensor> outputs, bool batched)
      : inputs_(std::move(inputs)), outputs_(std::move(outputs)), batched_(batched) {}

  /// Whether `x` (an array, a tensor on a GPU, or a dict of them) fits as it is: exact dtypes,
  /// C-contiguous (on a GPU: dense), shapes of a sample or of a batch. Anything else is left to the
  /// slower, explaining path in Python.
  bool match(pybind11::handle x, ParsedInputs& parsed) const;

  /// Shapes of the inputs of `rows` of the parsed rows, as the slots want them.
  std::vector<pipeline::Shape> unit_shapes(const ParsedInputs& parsed, std::uint32_t rows) const;

  /// Copies rows [first, first + claim.rows()) into the claimed slots, or says where on a GPU they
  /// are.
  void fill(const ParsedInputs& parsed, std::uint32_t first, pipeline::Claim& claim) const;

  /// The copy of that of one input, which lies in host memory.
  pipeline::SlotFill filling(std::size_t input, const ParsedInputs& parsed, std::uint32_t first,
                             const pipeline::Claim& claim) const;

  /// Other threads are let in while as many bytes are copied.
  static constexpr std::size_t kUnlockedCopyBytes = 1 << 16;

  /// Views of a claim's memory, by input name; they keep the pipeline alive.
  pybind11::dict views(const std::shared_ptr<pipeline::Pipeline>& pipeline,
                       const pipeline::Claim& claim, bool has_batch_axis) const;

  /// The outputs of a completed request, by name.
  pybind11::dict outputs(const pipeline::Request& request) const;

  bool batched() const { return batched_; }
  const std::vector<Tensor>& inputs() const { return inputs_; }

 private:
  bool match_one(std::size_t input, pybind11::handle value, ParsedInputs& parsed) const;
  bool match_on_gpu(std::size_t input, pybind11::handle value, ParsedInputs& parsed) const;
  bool match_shape(std::size_t input, const std::int64_t* shape, std::size_t rank,
                   ParsedInputs& parsed) const;
  void fill_from_gpu(const ParsedInputs& parsed, std::uint32_t first, pipeline::Claim& claim) const;

  std::vector<Tensor> inputs_, outputs_;
  bool batched_;
};

}  // namespace trtinfer::bindings
