#include <string>

#include "check.hpp"
#include "cuda/device.hpp"
#include "cuda/error.hpp"
#include "cuda/stream.hpp"

using namespace trtinfer;

namespace {

void probe_says_why_there_is_no_gpu() {
  const cuda::Probe found = cuda::probe();
  CHECK(found.compiled == (TRTINFER_CUDA != 0));
  CHECK(found.devices.empty() == !found.reason.empty());
  for (const cuda::Device& device : found.devices) {
    CHECK(!device.name.empty());
    CHECK(device.compute_capability.first >= 5);
    CHECK(device.memory_bytes > 0);
  }
}

void kernels_run_on_every_gpu_and_nowhere_else() {
  const cuda::Probe found = cuda::probe();
  const int absent = static_cast<int>(found.devices.size());
  CHECK_THROWS(cuda::code_architecture(absent), cuda::Error);
  for (const cuda::Device& device : found.devices) {  // after a failure, which must leave no trace
    const auto [major, minor] = device.compute_capability;
    const int architecture = cuda::code_architecture(device.index);
    CHECK(architecture >= 750 && architecture <= 100 * major + 10 * minor);
  }
}

void check_names_the_call_and_the_code() {
  cuda::check(0, "cudaMalloc");
  try {
    cuda::check(2, "cudaMalloc");
    CHECK(false);
  } catch (const cuda::Error& error) {
    const std::string text = error.what();
    CHECK(error.code() == 2);
    CHECK(text.find("cudaMalloc failed") == 0);
    CHECK(text.find("CUDA error 2") != std::string::npos);
  }
}

void absence_is_told_from_faults() {
  CHECK(cuda::is_no_gpu(35));
  CHECK(cuda::is_no_gpu(100));
  CHECK(!cuda::is_no_gpu(0));
  CHECK(!cuda::is_no_gpu(2));
}

void first_fatal_error_of_a_gpu_is_remembered() {
  const int device = cuda::current_device();
  CHECK(cuda::is_fatal(719));
  CHECK(!cuda::is_fatal(2));
  CHECK_THROWS((cuda::check(2, "cudaMalloc"), 0), cuda::Error);
  CHECK(cuda::failure_of(device) == 0);
  CHECK_THROWS((cuda::check(719, "cudaStreamSynchronize"), 0), cuda::Error);
  CHECK_THROWS((cuda::check(700, "cudaMalloc"), 0), cuda::Error);
  CHECK(cuda::failure_of(device) == 719);
  CHECK(cuda::failure_of(device + 1) == 0);
  CHECK(cuda::failure_of(-1) == 0);
  CHECK_THROWS(cuda::CurrentDevice(device), cuda::Error);
}

}  // namespace

int main() {
  probe_says_why_there_is_no_gpu();
  kernels_run_on_every_gpu_and_nowhere_else();
  check_names_the_call_and_the_code();
  absence_is_told_from_faults();
  first_fatal_error_of_a_gpu_is_remembered();  // the last: nothing takes it back
}
