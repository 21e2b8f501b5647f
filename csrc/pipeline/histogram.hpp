#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace trtinfer::pipeline {

/// Counts of non-negative nanoseconds in log-linear buckets: kSteps to every power of two, so that
/// a quantile is off by at most 1/kSteps (1.6 %), the layout of G. Tene's HdrHistogram.
/// Thread-safe; recording is one relaxed addition.
class Histogram {
 public:
  void record(std::int64_t nanoseconds, std::uint32_t times = 1) {
    counts_[index(nanoseconds)].fetch_add(times, std::memory_order_relaxed);
    sum_.fetch_add(nanoseconds * times, std::memory_order_relaxed);
  }

  std::uint64_t count() const {
    std::uint64_t total = 0;
    for (const auto& count : counts_) total += count.load(std::memory_order_relaxed);
    return total;
  }

  std::int64_t sum() const { return sum_.load(std::memory_order_relaxed); }

  /// The upper edge of the bucket that holds the `quantile` (0 to 1) of the values; 0 when empty.
  std::int64_t quantile(double quantile) const {
    const std::uint64_t total = count();
    if (total == 0) return 0;
    const double rank = quantile * static_cast<double>(total);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i].load(std::memory_order_relaxed);
      if (seen > 0 && static_cast<double>(seen) >= rank) return upper_edge(i);
    }
    return upper_edge(counts_.size() - 1);
  }

 private:
  static constexpr int kStepBits = 6;
  static constexpr std::int64_t kSteps = 1 << kStepBits;
  static constexpr int kOctaves = 40 - kStepBits;  // up to 2^40 ns = 18 minutes

  static std::size_t index(std::int64_t value) {
    if (value < kSteps) return static_cast<std::size_t>(value < 0 ? 0 : value);
    const int octave = std::bit_width(static_cast<std::uint64_t>(value)) - 1 - kStepBits;
    if (octave >= kOctaves) return kSteps * (kOctaves + 1) - 1;
    return static_cast<std::size_t>(kSteps * octave + (value >> octave));
  }

  static std::int64_t upper_edge(std::size_t index) {
    const auto position = static_cast<std::int64_t>(index);
    if (position < 2 * kSteps) return position;
    const std::int64_t octave = position / kSteps - 1;
    return ((position % kSteps + kSteps + 1) << octave) - 1;
  }

  std::array<std::atomic<std::uint64_t>, kSteps*(kOctaves + 1)> counts_{};
  std::atomic<std::int64_t> sum_{0};
};

}  // namespace trtinfer::pipeline
