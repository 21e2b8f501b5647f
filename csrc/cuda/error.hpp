// A failed CUDA call as a C++ exception.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace trtinfer::cuda {

// An argument that is wrong in itself; what was enqueued before is not touched by it.
inline constexpr int kInvalidValue = 1;

// Codes that say that this machine has no usable GPU (values of cudaError_t).
inline constexpr int kStubLibrary = 34;
inline constexpr int kInsufficientDriver = 35;
inline constexpr int kNoDevice = 100;

// Thrown by check(); holds the cudaError_t as a number, so that a build without CUDA knows it too.
class Error : public std::runtime_error {
 public:
  Error(int code, std::string_view call);
  int code() const noexcept { return code_; }

 private:
  int code_;
};

// True for the codes that mean "no GPU" rather than a fault.
bool is_no_gpu(int code) noexcept;

// True for the codes after which every call to that GPU fails, until the process ends.
bool is_fatal(int code) noexcept;

// The first such code that check() saw while that GPU was current; 0: none.
int failure_of(int device) noexcept;

// The runtime's own text for a code, with its number: "out of memory (CUDA error 2)".
std::string describe(int code);

// Throws Error naming the call unless code is cudaSuccess (0); clears the runtime's last error, and
// notes a fatal one.
void check(int code, std::string_view call);

}  // namespace trtinfer::cuda
