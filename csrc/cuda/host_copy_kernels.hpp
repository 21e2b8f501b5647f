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

struct HostWrites {
  struct {
    const std::byte* from;
    std::byte* to;
    std::size_t bytes;
  } outputs[HostWriter::kMostOutputs];
  std::uint32_t count = 0;
  std::uint32_t* counters;
  std::uint32_t* ended;
};

void launch_host_reader(const HostRows* list, std::uint32_t blocks, void* stream);
void launch_host_writer(const HostWrites& writes, void* stream);

}  // namespace trtinfer::cuda
