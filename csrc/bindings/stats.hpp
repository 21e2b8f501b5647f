// What a pipeline counted, as Python reads it.
#pragma once

#include <pybind11/pybind11.h>

#include "pipeline/pipeline.hpp"

namespace trtinfer::bindings {

/// Counters and latencies (in seconds) by name; trtinfer.metrics.Stats describes them.
pybind11::dict stats_of(pipeline::Pipeline& pipeline);

}  // namespace trtinfer::bindings
