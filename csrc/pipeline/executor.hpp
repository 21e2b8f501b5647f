#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "pipeline/device_input.hpp"
#include "pipeline/request.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::pipeline {

/// The backend refused or failed to run a batch.
class ExecutionError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// It is the batch that is wrong, and not the backend: its units may go together no more.
class BatchError : public ExecutionError {
 public:
  using ExecutionError::ExecutionError;
};

/// Requests that sit in one batch side by side: borrowed for the time of a run.
struct BatchUnit {
  Request* request = nullptr;
  std::uint32_t rows = 0;       ///< samples of this unit
  std::uint32_t first_row = 0;  ///< which of the request's rows is this unit's first
  const std::vector<std::byte*>* inputs = nullptr;
  const std::vector<Shape>* shapes = nullptr;  ///< of each input, with `rows` leading when batched
  const std::vector<DeviceInput>* device_inputs = nullptr;  ///< null, empty or one for each input

  /// Where an input lies on a GPU; null: in the slots.
  const DeviceInput* device_input(std::size_t input) const {
    if (device_inputs == nullptr || device_inputs->empty()) return nullptr;
    const DeviceInput& found = (*device_inputs)[input];
    return found.data == nullptr ? nullptr : &found;
  }
};

/// A cudaStream_t that batches run on.
struct LaneStream {
  int device = 0;
  void* handle = nullptr;
};

/// What a lane runs: a view, valid for the time of a run.
struct Batch {
  std::uint32_t lane = 0;
  std::uint32_t rows = 0;
  std::span<const BatchUnit> units;
  /// Tells that the units' inputs and shapes will not be read again, so that their slots may be
  /// filled anew while the batch runs. May be called once in a run; empty: nobody waits for it.
  std::function<void()> inputs_consumed;
};

/// What a run spent on bringing its inputs to where the model reads them and its outputs to the
/// requests, of the whole: copies, and no preprocessing.
struct TransferTimes {
  ring::Nanoseconds input = 0, output = 0;
};

/// Runs batches on a backend. `run` is called by at most one thread per lane at a time; it reads
/// the units' inputs and writes the requests' outputs, and throws ExecutionError.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual TransferTimes run(const Batch& batch) = 0;

  /// Units with equal keys may share a batch; `shapes` are those of one unit's inputs.
  virtual std::uint64_t batch_key(const std::vector<Shape>& shapes) const = 0;

  /// Why no unit with these input shapes can run, empty where it can; asked before slots are taken,
  /// if shapes vary.
  virtual std::string refusal(const std::vector<Shape>&) const { return {}; }

  /// Whether it takes units' device inputs; one that does not finds all inputs in the slots.
  virtual bool reads_device_inputs() const { return false; }

  /// Whether outputs stay on the GPU, in memory that each request keeps; one request is one unit
  /// then.
  virtual bool keeps_outputs() const { return false; }

  /// The GPU that inputs should lie near, in memory that it reads by itself; the first of several.
  virtual std::optional<int> gpu() const { return std::nullopt; }

  /// The lanes' streams; they live as long as the executor.
  virtual std::vector<LaneStream> streams() const { return {}; }

  /// Outputs as a request without batch axis sees them; used to allocate them ahead of the run.
  virtual const std::vector<TensorSpec>& outputs() const = 0;
};

/// A refusal of images without pixels.
std::string image_refusal(const Shape& image);

/// A batch_key that tells apart inputs whose rows differ in shape.
std::uint64_t row_key(const std::vector<Shape>& shapes);

/// Throws BatchError when units of different rows share a batch, as their keys may be equal by
/// chance; they are run alone then.
void check_rows_agree(const Batch& batch);

}  // namespace trtinfer::pipeline
