#include "bindings/stats.hpp"

#include <utility>

namespace py = pybind11;

namespace trtinfer::bindings {
namespace {

double seconds_each(const std::atomic<std::int64_t>& nanoseconds, std::uint64_t count) {
  return static_cast<double>(nanoseconds.load()) * 1e-9 / static_cast<double>(count);
}

py::dict quantiles(const pipeline::Histogram& histogram) {
  const std::uint64_t count = histogram.count();
  py::dict result;
  result["count"] = count;
  result["mean"] =
      count == 0 ? 0.0 : static_cast<double>(histogram.sum()) * 1e-9 / static_cast<double>(count);
  for (const auto& [name, quantile] :
       {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1.0}}) {
    result[name] = static_cast<double>(histogram.quantile(quantile)) * 1e-9;
  }
  return result;
}

}  // namespace

py::dict stats_of(pipeline::Pipeline& pipeline) {
  pipeline.check_process();  // a lock held at the fork stays locked in the child
  pipeline::Stats& stats = pipeline.stats();
  const ring::Occupancy occupancy = pipeline.occupancy();
  py::dict result;
  for (const auto& [name, counter] : {std::pair{"accepted", &stats.accepted},
                                      {"completed", &stats.completed},
                                      {"failed", &stats.failed},
                                      {"expired", &stats.expired},
                                      {"cancelled", &stats.cancelled},
                                      {"closed", &stats.closed},
                                      {"rejected", &stats.rejected},
                                      {"rejected_by_slo", &stats.rejected_by_slo},
                                      {"batches", &stats.batches},
                                      {"samples", &stats.samples},
                                      {"retried", &stats.retried}}) {
    result[name] = counter->load();
  }
  result["queue_length"] = occupancy.published;
  result["free_slots"] = occupancy.free;
  result["batches_in_flight"] = occupancy.lanes_busy;
  py::dict sizes, input, compute, output;
  for (std::size_t size = 1; size < stats.batch_sizes.size(); ++size) {
    if (const std::uint64_t count = stats.batch_sizes[size].load()) {
      sizes[py::int_(size)] = count;
      input[py::int_(size)] = seconds_each(stats.batch_input[size], count);
      output[py::int_(size)] = seconds_each(stats.batch_output[size], count);
    }
    const bool last_of_bucket = size + 1 == stats.batch_sizes.size() ||
                                stats.batch_compute[size] != stats.batch_compute[size + 1];
    if (last_of_bucket && stats.batch_compute[size]->count() > 0) {
      compute[py::int_(size)] = quantiles(*stats.batch_compute[size]);
    }
  }
  result["batch_sizes"] = sizes;
  result["batch_input"] = input;
  result["batch_compute"] = compute;
  result["batch_output"] = output;
  result["queue"] = quantiles(stats.queue);
  result["input"] = quantiles(stats.input);
  result["compute"] = quantiles(stats.compute);
  result["output"] = quantiles(stats.output);
  result["total"] = quantiles(stats.total);
  return result;
}

}  // namespace trtinfer::bindings
