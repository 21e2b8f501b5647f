// The preprocessing kernel's launch.
#pragma once

#include "preprocess/recipe.hpp"

namespace trtinfer::preprocess {

// One launch for a whole batch; every pointer is readable (output: writable) by the GPU.
struct BatchLaunch {
  const void* batch;  // write_batch's bytes
  const void* table;  // the recipe's NormalizationTable member for its dtype
  void* output;       // images x 3 x height x width of the recipe's dtype
  int images;
  int height, width;
};

// Enqueues the kernel on a cudaStream_t; may be captured into a graph. Throws cuda::Error.
void launch_batch(const Recipe& recipe, const BatchLaunch& launch, void* stream);

}  // namespace trtinfer::preprocess
