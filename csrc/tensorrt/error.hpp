#pragma once

#include <stdexcept>

namespace trtinfer::tensorrt {

/// TensorRT refused or failed; the message ends with what its logger said meanwhile.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace trtinfer::tensorrt
