#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pipeline/histogram.hpp"

namespace trtinfer::pipeline {

/// Everything a pipeline counts. accepted = completed + failed + expired + cancelled + closed +
/// those still pending; rejected requests (no room, or no time) were never accepted. Thread-safe.
struct Stats {
  explicit Stats(std::uint32_t max_batch_size)
      : batch_sizes(max_batch_size + 1), batch_compute(max_batch_size + 1) {
    // One histogram for each power of two, shared by the sizes that round up to it.
    for (std::uint32_t size = 1; size <= max_batch_size; ++size) {
      const std::uint32_t bucket =
          std::bit_ceil(size) < max_batch_size ? std::bit_ceil(size) : max_batch_size;
      if (batch_compute[bucket] == nullptr) batch_compute[bucket] = std::make_shared<Histogram>();
      batch_compute[size] = batch_compute[bucket];
    }
  }

  void record_batch(std::uint32_t rows, std::int64_t compute_ns) {
    batches.fetch_add(1, std::memory_order_relaxed);
    samples.fetch_add(rows, std::memory_order_relaxed);
    if (rows >= batch_sizes.size()) return;
    batch_sizes[rows].fetch_add(1, std::memory_order_relaxed);
    batch_compute[rows]->record(compute_ns);
  }

  std::atomic<std::uint64_t> accepted{0}, completed{0}, failed{0}, expired{0}, cancelled{0},
      closed{0}, rejected{0}, rejected_by_slo{0}, batches{0}, samples{0}, retried{0};
  std::vector<std::atomic<std::uint64_t>> batch_sizes;
  std::vector<std::shared_ptr<Histogram>> batch_compute;
  Histogram queue, compute, total;
};

}  // namespace trtinfer::pipeline
