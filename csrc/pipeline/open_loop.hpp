#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "pipeline/notifier.hpp"
#include "pipeline/pipeline.hpp"

namespace trtinfer::pipeline {

/// A request that is published over and over, as it lies in memory that the caller keeps.
struct Sample {
  std::uint32_t rows = 1;
  bool has_batch_axis = false;
  std::vector<const std::byte*> inputs;  ///< in the model's order
  std::vector<std::size_t> bytes;        ///< of each input
  std::vector<Shape> shapes;             ///< where shapes vary, as `Pipeline::claim` wants them
};

/// What the requests of a load ask for beside their inputs.
struct Terms {
  bool waits_for_room = false;  ///< in a full ring: it and those after it are published late
  ring::Nanoseconds timeout = ring::kNever;  ///< from each arrival
  std::vector<int> priorities{0};            ///< they take turns
  std::size_t senders = 0;                   ///< threads that copy inputs; 0: by their size
};

/// Load that waits for nobody: request i is published at `arrivals[i]`, whatever became of those
/// before it, and its latency counts from then, however late it was published. Native, so that
/// the pace is not that of an interpreter, and what is measured not the wait for its lock. Several
/// senders take the next request in turns: one that still copies large inputs makes none late.
class OpenLoop {
 public:
  static constexpr ring::Nanoseconds kRefused = -1;  ///< no room in the ring
  static constexpr ring::Nanoseconds kFailed = -2;   ///< accepted, but not answered
  static constexpr ring::Nanoseconds kUnsent = -3;   ///< stopped before

  /// Arrivals are in nanoseconds from the start of `run`, ascending; samples take turns.
  OpenLoop(std::shared_ptr<Pipeline> pipeline, std::vector<Sample> samples,
           std::vector<ring::Nanoseconds> arrivals, Terms terms = {});

  /// Publishes all requests and returns when all have ended. Call it once. Throws ClosedError.
  void run();

  /// Has `run` publish no more; callable from any thread.
  void stop() { stopped_.store(true, std::memory_order_relaxed); }

  /// Requests published or refused so far; callable from any thread.
  std::size_t sent() const { return sent_.load(std::memory_order_relaxed); }

  /// Of each request, after `run`: nanoseconds from its arrival to its answer, or one of the above.
  const std::vector<ring::Nanoseconds>& latencies() const { return latencies_; }

  /// Likewise: how long after its arrival it was published.
  const std::vector<ring::Nanoseconds>& lateness() const { return lateness_; }

  /// From the start until the last request had ended.
  ring::Nanoseconds elapsed() const { return elapsed_; }

 private:
  void send();
  void publish_all();
  bool await(ring::Nanoseconds arrival) const;
  void publish(std::size_t index, ring::Nanoseconds arrival);
  void collect();
  void await_all();

  const std::shared_ptr<Pipeline> pipeline_;
  const std::vector<Sample> samples_;
  const std::vector<ring::Nanoseconds> arrivals_;
  const Terms terms_;
  const std::size_t senders_;
  const std::shared_ptr<Notifier> notifier_;
  std::vector<ring::Nanoseconds> latencies_, lateness_;
  ring::Nanoseconds start_ = 0, elapsed_ = 0;
  std::atomic<std::size_t> next_{0}, sent_{0}, accepted_{0}, ended_{0};
  std::atomic<bool> stopped_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;  // the first of all senders
  ring::WaitWord progress_;
};

}  // namespace trtinfer::pipeline
