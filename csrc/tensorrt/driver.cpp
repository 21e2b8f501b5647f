#include "tensorrt/driver.hpp"

#include <dlfcn.h>

namespace trtinfer::tensorrt {
namespace {

Driver initialize() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) return {false, std::string("no NVIDIA driver: ") + ::dlerror()};
  auto init = reinterpret_cast<int (*)(unsigned)>(::dlsym(library, "cuInit"));
  auto describe =
      reinterpret_cast<int (*)(int, const char**)>(::dlsym(library, "cuGetErrorString"));
  if (init == nullptr) return {false, "libcuda.so.1 has no cuInit"};
  const int error = init(0);
  if (error == 0) return {true, ""};
  const char* text = nullptr;
  if (describe != nullptr) describe(error, &text);
  return {false, "the NVIDIA driver cannot be used: " +
                     std::string(text == nullptr ? "cuInit failed" : text) + " (CUDA error " +
                     std::to_string(error) + ")"};
}

}  // namespace

const Driver& driver() {
  static const Driver found = initialize();
  return found;
}

}  // namespace trtinfer::tensorrt
