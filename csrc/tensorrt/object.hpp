#pragma once

#include <memory>

#include "tensorrt/abi.hpp"

namespace trtinfer::tensorrt {

/// Calls the destructor that also frees, with the object's GPU current. On a GPU that has failed it
/// crashes, so what was made there is left to the end of the process.
struct Destroy {
  int device = -1;  // on which the object was made; -1: on none

  void operator()(void* interface) const noexcept;
};

/// Owns an interface of TensorRT.
using Object = std::unique_ptr<void, Destroy>;

/// An IParser is no wrapper: its destructor is a slot among the others.
struct DestroyParser {
  DirectMethod<void()> destroy;
  void operator()(void* parser) const { destroy(parser); }
};
using ParserObject = std::unique_ptr<void, DestroyParser>;

}  // namespace trtinfer::tensorrt
