#pragma once

#include <memory>

#include "tensorrt/abi.hpp"

namespace trtinfer::tensorrt {

/// Calls the destructor that also frees, which is the second entry of a wrapper's vtable.
struct Destroy {
  void operator()(void* interface) const noexcept {
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
