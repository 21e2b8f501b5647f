#include "cuda/device.hpp"

#include <array>

#include "cuda/error.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace trtinfer::cuda {

#if TRTINFER_CUDA

namespace {

Device describe_device(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  std::array<char, 32> address{};
  check(cudaDeviceGetPCIBusId(address.data(), static_cast<int>(address.size()), index),
        "cudaDeviceGetPCIBusId");
  return {index,
          properties.name,
          {properties.major, properties.minor},
          properties.totalGlobalMem,
          address.data()};
}

std::string no_gpu_reason(int code, int driver_version) {
  if (!is_no_gpu(code)) return "the GPU cannot be used: " + describe(code);
  if (driver_version == 0) return "no GPU: no NVIDIA driver is installed";
  return "no GPU: " + describe(code);
}

}  // namespace

Probe probe() {
  Probe found;
  found.compiled = true;
  found.error = cudaDriverGetVersion(&found.driver_version);
  if (found.error == 0) found.error = cudaRuntimeGetVersion(&found.runtime_version);
  int count = 0;
  if (found.error == 0) found.error = cudaGetDeviceCount(&count);
  try {
    for (int index = 0; index < count; ++index) found.devices.push_back(describe_device(index));
  } catch (const Error& error) {
    found.devices.clear();
    found.error = error.code();
  }
  if (found.devices.empty()) {
    if (found.error == 0) found.error = kNoDevice;
    found.reason = no_gpu_reason(found.error, found.driver_version);
    static_cast<void>(cudaGetLastError());  // a later check must not find this error
  }
  return found;
}

int current_device() noexcept {
  int device = 0;
  return cudaGetDevice(&device) == cudaSuccess ? device : 0;
}

#else

Probe probe() {
  Probe found;
  found.reason = "no GPU: this build of trtinfer has no CUDA code (-DTRTINFER_CUDA=OFF)";
  return found;
}

int current_device() noexcept { return 0; }

int code_architecture(int /*device*/) { throw Error(kNoDevice, "running a kernel"); }

#endif

}  // namespace trtinfer::cuda
