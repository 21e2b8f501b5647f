#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/request.hpp"
#include "ring/futex.hpp"

namespace trtinfer::pipeline {

/// What became of one request, kept when the request itself is gone.
struct RequestTrace {
  ring::Nanoseconds arrival, launched, finished;  ///< launched: 0 if it never was
  Outcome outcome;
  std::uint32_t rows, batch_rows;  ///< its own, and those of the batch that it ran in
  std::string error;
  std::shared_ptr<void> context;  ///< what its caller left with it
};

/// Ended requests on their way to one reader. Whoever ends a request never waits for the reader: of
/// more than `kCapacity` that were not read yet, the latest are dropped and counted. Thread-safe.
class TraceLog {
 public:
  static constexpr std::size_t kCapacity = std::size_t{1} << 16;

  /// Notes an ended request and takes its context; a dropped one keeps it.
  void add(Request& request, ring::Nanoseconds finished);

  /// Sleeps until there is something to read; false once `stop` was called and nothing is left.
  bool wait();

  /// Takes all there is, in order, into `traces` (emptied first).
  void drain(std::vector<RequestTrace>& traces);

  /// Ends `wait`.
  void stop();

  std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;  // guards traces_ and stopped_
  std::vector<RequestTrace> traces_;
  bool stopped_ = false;
  std::atomic<std::uint64_t> dropped_{0};
  ring::WaitWord changed_;
};

}  // namespace trtinfer::pipeline
