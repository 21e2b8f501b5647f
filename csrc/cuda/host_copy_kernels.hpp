// What HostReader and HostWriter launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/host_copy.hpp"

namespace trtinfer::cuda {

struct HostRows {
  const std::byte* from;
  std::byte* to;
  Rows rows;  // none: there is no such block
};

// Of the stream's runs, in memory of the GPU. Times are nanoseconds of its clock.
struct RunState {
  std::uint32_t blocks_done, runs;
  std::uint64_t reading_from, reading_to;  // reading_to: 0 if the run reads nothing
  std::uint64_t writing_from;              // 0: when the kernel that writes starts
};

// What the host is told of a run. The first two are written at once, and last.
struct alignas(8) RunReport {
  std::uint32_t runs, writing, reading;  // durations in nanoseconds
};

struct HostWrites {
  struct {
    const std::byte* from;
    std::byte* to;
    std::size_t bytes;
  } outputs[HostWriter::kMostOutputs];
  std::uint32_t count = 0;
  RunState* state;
  RunReport* report;
};

void launch_host_reader(const HostRows* list, std::uint32_t blocks, RunState* state, void* stream);
void launch_writing_start(RunState* state, void* stream);
void launch_host_writer(const HostWrites& writes, void* stream);

}  // namespace trtinfer::cuda
