#pragma once

#include <memory>

#include "cuda/error.hpp"
#include "tensorrt/abi.hpp"

namespace trtinfer::tensorrt {

/// Calls the destructor that also frees, which is the second entry of a wrapper's vtable. On a GPU
/// that has failed it crashes, so what was made there is left to the end of the process.
struct Destroy {
  int device = -1;  // on which the object was made; -1: on none

  void operator()(void* interface) const noexcept {
    if (cuda::has_failed(device)) return;
    void* const* vtable = *static_cast<void* const* const*>(interface);
    reinterpret_cast<void (*)(void*)>(vtable[1])(interface);
  }
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
