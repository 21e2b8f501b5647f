// Quantiles against the sorted values themselves.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "pipeline/histogram.hpp"

using trtinfer::pipeline::Histogram;

namespace {

void is_zero_when_empty() {
  const auto histogram = std::make_unique<Histogram>();
  CHECK(histogram->count() == 0 && histogram->sum() == 0);
  CHECK(histogram->quantile(0.5) == 0 && histogram->quantile(1.0) == 0);
}

void is_exact_for_small_values() {
  const auto histogram = std::make_unique<Histogram>();
  for (std::int64_t value = 0; value < 128; ++value) histogram->record(value);
  for (std::int64_t value = 0; value < 128; ++value) {
    CHECK(histogram->quantile(static_cast<double>(value + 1) / 128) == value);
  }
}

// No quantile lies below the true one, and none more than 1/64 above.
void bounds_the_error_of_every_quantile() {
  std::mt19937_64 random(1);
  for (const double spread : {2.0, 8.0, 26.0}) {
    const auto histogram = std::make_unique<Histogram>();
    std::vector<std::int64_t> values;
    std::uniform_real_distribution<double> exponent(0, spread);
    for (int i = 0; i < 5000; ++i) {
      values.push_back(static_cast<std::int64_t>(std::exp(exponent(random))));
      histogram->record(values.back());
    }
    std::sort(values.begin(), values.end());
    for (const double quantile : {0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      const double rank = std::max(1.0, std::ceil(quantile * static_cast<double>(values.size())));
      const auto truth = static_cast<double>(values[static_cast<std::size_t>(rank) - 1]);
      const auto found = static_cast<double>(histogram->quantile(quantile));
      CHECK(found >= truth && found <= truth * (1 + 1.0 / 64));
    }
  }
}

void takes_values_out_of_range() {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(-5);
  CHECK(histogram->quantile(1.0) == 0);
  histogram->record(std::int64_t{1} << 60);
  CHECK(histogram->count() == 2);
  CHECK(histogram->quantile(1.0) >= (std::int64_t{1} << 39));
}

void counts_from_many_threads() {
  const auto histogram = std::make_unique<Histogram>();
  std::vector<std::thread> threads;
  for (std::int64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10000; ++i) histogram->record(t);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(histogram->count() == 40000);
  CHECK(histogram->sum() == 10000 * (0 + 1 + 2 + 3));
  CHECK(histogram->quantile(0.25) == 0 && histogram->quantile(0.26) == 1);
}

}  // namespace

int main() {
  is_zero_when_empty();
  is_exact_for_small_values();
  bounds_the_error_of_every_quantile();
  takes_values_out_of_range();
  counts_from_many_threads();
}
