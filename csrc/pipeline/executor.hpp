#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "pipeline/request.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::pipeline {

/// The backend refused or failed to run a batch.
class ExecutionError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Requests that sit in one batch side by side: borrowed for the time of a run.
struct BatchUnit {
  Request* request = nullptr;
  std::uint32_t rows = 0;       ///< samples of this unit
  std::uint32_t first_row = 0;  ///< which of the request's rows is this unit's first
  const std::vector<std::byte*>* inputs = nullptr;
  const std::vector<Shape>* shapes = nullptr;  ///< of each input, with `rows` leading when batched
};

struct Batch {
  std::uint32_t lane = 0;
  std::uint32_t rows = 0;
  std::vector<BatchUnit> units;
};

/// Runs batches on a backend. `run` is called by at most one thread per lane at a time; it reads
/// the units' inputs and writes the requests' outputs, and throws ExecutionError.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void run(const Batch& batch) = 0;

  /// Units with equal keys may share a batch; `shapes` are those of one unit's inputs.
  virtual std::uint64_t batch_key(const std::vector<Shape>& shapes) const = 0;

  /// Whether inputs should lie in memory that the GPU reads by itself.
  virtual bool wants_pinned_memory() const { return false; }

  /// Outputs as a request without batch axis sees them; used to allocate them ahead of the run.
  virtual const std::vector<TensorSpec>& outputs() const = 0;
};

}  // namespace trtinfer::pipeline
