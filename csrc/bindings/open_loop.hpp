// Python face of pipeline::OpenLoop.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "pipeline/open_loop.hpp"

namespace trtinfer::bindings {

/// An open loop and the arrays that it sends.
struct OpenLoopHandle {
  std::shared_ptr<pipeline::OpenLoop> loop;
  pybind11::list arrays;
};

}  // namespace trtinfer::bindings
