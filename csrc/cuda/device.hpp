// What CUDA finds on this machine.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace trtinfer::cuda {

// One GPU, as the runtime numbers them.
struct Device {
  int index = 0;
  std::string name;
  std::pair<int, int> compute_capability;  // major, minor
  std::uint64_t memory_bytes = 0;
  std::string pci_address;  // "0000:1b:00.0", the same for every process of a machine
};

// The answer of probe(). Versions are 1000 * major + 10 * minor; 0: absent.
struct Probe {
  bool compiled = false;    // this build holds CUDA code
  int driver_version = 0;   // newest CUDA version that the installed driver serves
  int runtime_version = 0;  // of the runtime linked into this build
  int error = 0;            // cudaError_t of the call that ended the search; 0: none
  std::string reason;       // why `devices` is empty; empty when it is not
  std::vector<Device> devices;
};

// Lists the GPUs. Never throws for a machine without a driver or GPU: it says so in `reason`.
Probe probe();

// The GPU that the calling thread uses; 0 where there is none.
int current_device() noexcept;

// Runs a kernel on the GPU and returns the architecture that it was compiled for, as
// 100 * major + 10 * minor (900: sm_90); that it returns at all proves that this build serves the
// GPU. Makes the device current for the calling thread. Throws Error.
int code_architecture(int device);

}  // namespace trtinfer::cuda
