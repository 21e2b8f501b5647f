#pragma once

#include <string>

namespace trtinfer::tensorrt {

/// Whether NVIDIA's driver works in this process.
struct Driver {
  bool usable = false;
  std::string reason;  // why not
};

/// Initializes the driver at the first call, since some releases of TensorRT return garbage instead
/// of an object without one. The answer of the first call stays.
const Driver& driver();

}  // namespace trtinfer::tensorrt
