// Copies between the GPU and pinned host memory that kernels do themselves, as nodes of a graph:
// for a small batch they are quicker than the copy engines, which a graph waits for at both its
// ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/memory.hpp"
#include "cuda/stream.hpp"

namespace trtinfer::cuda {

struct RunState;
struct RunReport;

// How long kernels of a run took, by the GPU's clock; nanoseconds.
struct HostCopyTimes {
  std::uint32_t reading = 0, writing = 0;
};

// Writes outputs into host memory, and then a number there, so that whoever waits needs no call
// into the driver. For one stream.
class HostWriter {
 public:
  struct Output {
    const void* from;
    void* to;
    std::size_t bytes;
  };
  static constexpr std::size_t kMostOutputs = 8;

  HostWriter();

  // Enqueues, or captures, a kernel that notes when outputs are there, for a run in which copies
  // of others come before launch().
  void start(const Stream& stream) const;

  // Enqueues, or captures, a kernel that writes them, at most kMostOutputs, and ends the run.
  void launch(std::span<const Output> outputs, const Stream& stream) const;

  // To be told of every run, after its launch.
  void expect() { ++expected_; }

  // Whether all runs have ended that were to be expected. Says nothing of a GPU that failed.
  bool done() const;

  // Of the run that ended last.
  HostCopyTimes times() const;

 private:
  friend class HostReader;
  RunReport& report() const;

  DeviceMemory state_;  // RunState
  PinnedMemory report_;
  std::uint32_t expected_ = 0;
};

// Reads blocks of host memory that are named anew before every launch. For one stream.
class HostReader {
 public:
  // There is room for so many blocks. The writer, which lives as long, ends the same runs.
  HostReader(std::uint32_t most_blocks, const HostWriter& writer);

  // Whether a block can be read: its place on the GPU is made of whole words.
  static bool reads(const void* to, const Rows& rows);

  // Names no blocks; only while no launch is under way, as add().
  void clear();

  // Names one more block, which must be such a one.
  void add(void* to, const void* from, const Rows& rows);

  // Enqueues, or captures, a kernel that reads those of the first so many blocks that are named
  // when it runs.
  void launch(std::uint32_t blocks, const Stream& stream) const;

 private:
  std::uint32_t blocks_ = 0;
  PinnedMemory list_;
  RunState* state_;
};

}  // namespace trtinfer::cuda
