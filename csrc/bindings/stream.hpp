// CUDA streams of others for us, and of ours for others.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "pipeline/executor.hpp"

namespace trtinfer::bindings {

/// The cudaStream_t of an integer or of an object with `__cuda_stream__` (cuda.core, CuPy,
/// PyTorch); nothing for None. Raises InputError.
std::optional<void*> stream_handle(pybind11::handle stream);

/// A lane's stream, and what keeps it alive.
struct StreamHandle {
  std::shared_ptr<const void> owner;
  pipeline::LaneStream stream;

  std::uintptr_t number() const { return reinterpret_cast<std::uintptr_t>(stream.handle); }
};

}  // namespace trtinfer::bindings
