#include "cuda/error.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>

#include "cuda/device.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace trtinfer::cuda {
namespace {

// Those of which CUDA's documentation says that the process has to be started again, uncorrectable
// errors of memory and of NVLink, unknown ones, and those of a context or a runtime that is gone.
constexpr std::array kFatal = {4,   214, 220, 226, 700, 702, 709, 710, 714,
                               715, 716, 717, 718, 719, 721, 810, 911, 999};

constexpr std::size_t kMostDevices = 64;
std::array<std::atomic<int>, kMostDevices> failures{};

void note(int device, int code) noexcept {
  const auto index = static_cast<std::size_t>(device);
  int none = 0;
  if (index < failures.size()) failures[index].compare_exchange_strong(none, code);
}

}  // namespace

Error::Error(int code, std::string_view call)
    : std::runtime_error(std::string(call) + " failed: " + describe(code)), code_(code) {}

bool is_no_gpu(int code) noexcept {
  return code == kStubLibrary || code == kInsufficientDriver || code == kNoDevice;
}

bool is_fatal(int code) noexcept {
  return std::find(kFatal.begin(), kFatal.end(), code) != kFatal.end();
}

int failure_of(int device) noexcept {
  const auto index = static_cast<std::size_t>(device);
  return index < failures.size() ? failures[index].load(std::memory_order_relaxed) : 0;
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
  if (is_fatal(code)) note(current_device(), code);
  throw Error(code, call);
}

}  // namespace trtinfer::cuda
