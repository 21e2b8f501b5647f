#include <cuda_runtime.h>

#include <memory>

#include "cuda/device.hpp"
#include "cuda/error.hpp"

namespace trtinfer::cuda {

namespace {

__global__ void store_architecture(int* result) {
#ifdef __CUDA_ARCH__
  *result = __CUDA_ARCH__;
#endif
}

struct FreeDevice {
  void operator()(int* memory) const noexcept { static_cast<void>(cudaFree(memory)); }
};

}  // namespace

int code_architecture(int device) {
  check(cudaSetDevice(device), "cudaSetDevice");
  int* memory = nullptr;
  check(cudaMalloc(&memory, sizeof(int)), "cudaMalloc");
  const std::unique_ptr<int, FreeDevice> owner(memory);
  store_architecture<<<1, 1>>>(memory);
  check(cudaGetLastError(), "launching a kernel");
  int architecture = 0;
  check(cudaMemcpy(&architecture, memory, sizeof(int), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return architecture;
}

}  // namespace trtinfer::cuda
