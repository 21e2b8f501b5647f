#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pipeline/executor.hpp"
#include "pipeline/histogram.hpp"

namespace trtinfer::pipeline {

/// Everything a pipeline counts. accepted = completed + failed + expired + cancelled + closed +
/// those still pending; rejected requests (no room, or no time) were never accepted. Thread-safe.
struct Stats {
  explicit Stats(std::uint32_t max_batch_size)
      : batch_sizes(max_batch_size + 1),
        batch_input(max_batch_size + 1),
        batch_output(max_batch_size + 1),
        batch_compute(max_batch_size + 1) {
    // One histogram for each power of two, shared by the sizes that round up to it.
    for (std::uint32_t size = 1; size <= max_batch_size; ++size) {
      const std::uint32_t bucket =
          std::bit_ceil(size) < max_batch_size ? std::bit_ceil(size) : max_batch_size;
      if (batch_compute[bucket] == nullptr) batch_compute[bucket] = std::make_shared<Histogram>();
      batch_compute[size] = batch_compute[bucket];
    }
  }

  /// A batch of so many samples and requests has run for `run_ns`, of which transfers took a part.
  void record_batch(std::uint32_t rows, std::uint32_t requests, std::int64_t run_ns,
                    const TransferTimes& transfers) {
    const std::int64_t compute_ns = run_ns - transfers.input - transfers.output;
    batches.fetch_add(1, std::memory_order_relaxed);
    samples.fetch_add(rows, std::memory_order_relaxed);
    input.record(transfers.input, requests);
    compute.record(compute_ns, requests);
    output.record(transfers.output, requests);
    if (rows >= batch_sizes.size()) return;
    batch_sizes[rows].fetch_add(1, std::memory_order_relaxed);
    batch_input[rows].fetch_add(transfers.input, std::memory_order_relaxed);
    batch_output[rows].fetch_add(transfers.output, std::memory_order_relaxed);
    batch_compute[rows]->record(compute_ns);
  }

  std::atomic<std::uint64_t> accepted{0}, completed{0}, failed{0}, expired{0}, cancelled{0},
      closed{0}, rejected{0}, rejected_by_slo{0}, batches{0}, samples{0}, retried{0};
  std::vector<std::atomic<std::uint64_t>> batch_sizes;
  std::vector<std::atomic<std::int64_t>> batch_input, batch_output;  // nanoseconds in all
  std::vector<std::shared_ptr<Histogram>> batch_compute;
  Histogram queue, total;            // of each completed or failed request
  Histogram input, compute, output;  // of each batch, for each of its requests
};

}  // namespace trtinfer::pipeline
