#include "cuda/error.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace trtinfer::cuda {

Error::Error(int code, std::string_view call)
    : std::runtime_error(std::string(call) + " failed: " + describe(code)), code_(code) {}

bool is_no_gpu(int code) noexcept {
  return code == kStubLibrary || code == kInsufficientDriver || code == kNoDevice;
}

std::string describe(int code) {
#if TRTINFER_CUDA
  const std::string text = cudaGetErrorString(static_cast<cudaError_t>(code));
#else
  const std::string text = "no CUDA in this build";
#endif
  return text + " (CUDA error " + std::to_string(code) + ")";
}

void check(int code, std::string_view call) {
  if (code == 0) return;
#if TRTINFER_CUDA
  static_cast<void>(cudaGetLastError());  // else the next kernel launch would report this error
#endif
  throw Error(code, call);
}

}  // namespace trtinfer::cuda
