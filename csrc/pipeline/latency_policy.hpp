#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "ring/futex.hpp"

namespace trtinfer::pipeline {

struct LatencyPolicyOptions {
  ring::Nanoseconds target = 0;      ///< latency that 99 of 100 answered requests stay under;
                                     ///< kNever: none, only throughput and latency count
  std::uint32_t lanes = 1;           ///< batches in flight
  bool lanes_share = true;           ///< one device runs them in turn; false: side by side
  bool pads = true;                  ///< a batch costs what the next of `sizes` costs
  std::vector<std::uint32_t> sizes;  ///< batch sizes whose cost is learned, ascending
};

/// What to do with the samples that wait.
struct LaunchDecision {
  std::uint32_t samples = 0;                  ///< launch this many now, if there are; 0: hold them
  ring::Nanoseconds retry_at = ring::kNever;  ///< until then at most
};

/// How costs are learned from batches that have run.
struct Learning {
  std::uint32_t stretch;  ///< batches from whose time together costs are corrected
  double correction;      ///< share of what a stretch was wrong by
  double half_believed;   ///< runs of a size after which half of its cost is believed
  double forgotten;       ///< batches without one of a size after which nothing of it is
  bool by_samples;        ///< batches of its own size, then: to try a large one costs more
};

/// Chooses batch sizes and moments of launch so that requests are answered within a target at the
/// highest throughput, and tells which new requests can no longer be. It knows what batches cost
/// and learns on: costs from stretches of some batches, and how far its predictions fall short as
/// a running 99 % quantile, which it keeps as a margin.
/// Pure: the time is an argument and nothing here waits. Thread-safe.
class LatencyPolicy {
 public:
  /// What a batch costs beside its run, in ns: threads that wake up, callers that are told.
  static constexpr double kOverhead = 100'000;

  /// A batch twice as large must be cheaper by this factor. Else those who wait are better off in
  /// two, of which the first is answered sooner and the second no later.
  static constexpr double kDoublingPays = 1.02;

  explicit LatencyPolicy(LatencyPolicyOptions options);

  /// A batch of `samples` takes the device this long; for what is measured before the first
  /// request.
  void learn(std::uint32_t samples, ring::Nanoseconds cost);

  /// What to launch of `queued` samples at `now`. A device that runs nothing never waits.
  LaunchDecision decide(ring::Nanoseconds now, std::uint32_t queued) const;

  /// Latency to expect of a request of `samples` that joins `queued` others.
  ring::Nanoseconds predict(ring::Nanoseconds now, std::uint32_t queued,
                            std::uint32_t samples) const;

  /// Whether that leaves the margin. Always so when nothing runs or waits: it cannot get better,
  /// and what was learned in worse times is so learned anew.
  bool admits(ring::Nanoseconds now, std::uint32_t queued, std::uint32_t samples) const;

  /// From these two it learns. Time that a batch waited for those before it is not its own.
  void launched(std::uint32_t lane, ring::Nanoseconds now, std::uint32_t samples);
  void finished(std::uint32_t lane, ring::Nanoseconds now);

  /// A request was answered after `latency`; `predicted` was said when it came.
  void answered(ring::Nanoseconds predicted, ring::Nanoseconds latency);

  /// The batch size with the highest throughput of those that keep the target.
  std::uint32_t batch_limit() const;

  ring::Nanoseconds cost(std::uint32_t samples) const;
  ring::Nanoseconds margin() const;
  ring::Nanoseconds target() const { return options_.target; }
  const std::vector<std::uint32_t>& sizes() const { return options_.sizes; }

 private:
  /// What a lane runs.
  struct Run {
    std::uint32_t samples = 0;  // 0: nothing
    ring::Nanoseconds launched_at = 0, ends_at = 0;
  };

  /// A batch size. What it cost in trial runs, one at a time, may be too much: batches overlap.
  struct Size {
    double cost = 0;             // ns; 0: not known yet
    double expected = 0;         // ns of the device's time in this stretch, by `cost`
    double runs = 0;             // under load, those of long ago for less
    std::uint64_t last_run = 0;  // what `passed_` was then
    double forgotten = 0;        // when so much has passed since
  };

  Size* size_of(std::uint32_t samples);
  void learn_run(std::uint32_t samples, ring::Nanoseconds seen);
  void learn_stretch();
  double age(const Size& size) const;
  double doubt(const Size& size) const;
  double cost_of(std::uint32_t samples) const;
  std::uint32_t limit() const;
  bool keeps_target(const Size& size) const;
  std::uint32_t most_worth() const;
  std::uint32_t worth_launching(std::uint32_t available) const;
  ring::Nanoseconds device_free_at(ring::Nanoseconds now) const;
  bool runs_nothing() const;

  const LatencyPolicyOptions options_;
  const Learning learning_;
  const bool tries_smaller_;  // sizes of which little is known: no prediction depends on the choice
  mutable std::mutex mutex_;
  std::vector<Size> sizes_;             // as options_.sizes
  std::uint64_t passed_ = 0;            // batches, or samples, that have run under load
  std::uint32_t stretch_batches_ = 0;   // since costs were last corrected
  double stretch_ = 0;                  // ns that those took of the device
  std::vector<Run> runs_;               // by lane
  ring::Nanoseconds last_ends_at_ = 0;  // of what was launched last
  ring::Nanoseconds last_finished_ = 0;
  double margin_ = 0;
};

}  // namespace trtinfer::pipeline
