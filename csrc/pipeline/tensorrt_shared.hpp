#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/device_pool.hpp"
#include "cuda/turns.hpp"
#include "pipeline/tensor_spec.hpp"
#include "preprocess/gpu.hpp"
#include "ring/futex.hpp"
#include "tensorrt/runtime_cache.hpp"

namespace trtinfer::pipeline {

struct TensorRtExecutorOptions {
  int device = 0;
  std::uint32_t lanes = 1;
  ring::Nanoseconds spin = 2'000'000;             ///< how long a wait spins before it sleeps
  bool keeps_outputs = false;                     ///< outputs stay on the GPU
  std::shared_ptr<tensorrt::RuntimeCache> cache;  ///< kernels compiled just in time; may be null
};

/// What the lanes of a TensorRtExecutor, which owns it, have in common.
struct TensorRtShared {
  TensorRtExecutorOptions options;
  std::unique_ptr<const preprocess::GpuPreprocessor> preprocessor;  ///< null: no images
  std::vector<TensorSpec> inputs, outputs;      ///< of the model, without batch axis
  bool batched = false;                         ///< the model has a batch axis
  bool varies = false;                          ///< rows vary in shape
  std::vector<Shape> smallest, usual, largest;  ///< rows of the inputs
  std::shared_ptr<cuda::DevicePool> kept;       ///< outputs that stay on the GPU
  mutable std::mutex new_shapes;  ///< TensorRT prepares one at a time, though contexts are apart
  mutable cuda::Turns turns;      ///< batches that each keep the GPU busy

  /// Of a tensor's shape.
  Shape row_of(const Shape& shape) const {
    return {shape.begin() + (batched ? 1 : 0), shape.end()};
  }
};

}  // namespace trtinfer::pipeline
