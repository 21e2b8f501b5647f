#include "tensorrt/object.hpp"

#include <exception>
#include <optional>

#include "cuda/stream.hpp"

namespace trtinfer::tensorrt {

void Destroy::operator()(void* interface) const noexcept {
  std::optional<cuda::CurrentDevice> current;
  try {
    if (device >= 0) current.emplace(device);
  } catch (const std::exception&) {  // of a GPU that has failed
    return;
  }
  void* const* vtable = *static_cast<void* const* const*>(interface);  // wrappers': destructors
  reinterpret_cast<void (*)(void*)>(vtable[1])(interface);             // the one that also frees
}

}  // namespace trtinfer::tensorrt
