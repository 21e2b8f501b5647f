// Requests whose inputs and outputs are Python objects rather than tensors.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "pipeline/executor.hpp"

namespace trtinfer::bindings {

/// Runs one request at a time by calling a Python function with its payload; what it returns
/// becomes the payload. Takes the GIL for each run. For models whose values no slot can hold:
/// strings, sequences, maps, optionals.
class ObjectExecutor : public pipeline::Executor {
 public:
  explicit ObjectExecutor(pybind11::object function);

  pipeline::TransferTimes run(const pipeline::Batch& batch) override;
  std::uint64_t batch_key(const std::vector<pipeline::Shape>&) const override { return 0; }
  const std::vector<pipeline::TensorSpec>& outputs() const override { return outputs_; }

 private:
  std::shared_ptr<void> function_;
  std::vector<pipeline::TensorSpec> outputs_;  // none: outputs travel in the payload
};

}  // namespace trtinfer::bindings
