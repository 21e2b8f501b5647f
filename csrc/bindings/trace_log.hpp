// Python face of pipeline::TraceLog.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "pipeline/pipeline.hpp"

namespace trtinfer::bindings {

/// Leaves the caller's contextvars with a request, if its trace will be read.
void keep_context(const pipeline::Pipeline& pipeline, pipeline::Request& request);

/// Hands what became of requests to Python.
class TraceLogHandle {
 public:
  TraceLogHandle() : log_(std::make_shared<pipeline::TraceLog>()) {}

  /// The fields of a trtinfer.trace.RequestTrace for each request that ended since the last call.
  pybind11::list drain();

  const std::shared_ptr<pipeline::TraceLog>& get() const { return log_; }

 private:
  std::shared_ptr<pipeline::TraceLog> log_;
  std::vector<pipeline::RequestTrace> traces_;
};

}  // namespace trtinfer::bindings
