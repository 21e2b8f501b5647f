// All that preprocessing needs to know about one source size.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "preprocess/coefficients.hpp"
#include "preprocess/recipe.hpp"

namespace trtinfer::preprocess {

// Column weights cut into signed 16-bit halves, weight = high * 2^16 + low, two taps to an
// int32: for every two pairs of taps (low, low, high, high). Both halves of a sum fit the
// multiply-add of 16-bit numbers that every SIMD unit has; sums modulo 2^32 lose nothing.
struct PairedWeights {
  int pairs = 0;    // of each output, the same for all
  int outputs = 0;  // leading outputs whose taps, read 16 bytes at a time, stay within the row
  std::vector<std::int32_t> halves;

  // Int32s of one output.
  int stride() const noexcept { return (pairs + 1) / 2 * 4; }
};

// The part of a source that its output is made of.
struct SourceWindow {
  std::int32_t first_row, rows, first_column, columns;
};

// Geometry and weights of one source size; immutable.
struct Resampling {
  Geometry geometry;
  Coefficients columns, rows;
  PairedWeights paired_columns;

  Resampling(const Recipe& recipe, std::int64_t height, std::int64_t width);

  SourceWindow source_window() const noexcept;
};

// The resamplings of the last few source sizes. Thread-safe.
class ResamplingCache {
 public:
  explicit ResamplingCache(const Recipe& recipe, std::size_t capacity = 64);

  // Throws std::invalid_argument as make_geometry does.
  std::shared_ptr<const Resampling> get(std::int64_t height, std::int64_t width);

 private:
  struct Entry {
    std::int64_t height, width;
    std::shared_ptr<const Resampling> resampling;
    std::uint64_t last_use;
  };

  std::shared_ptr<const Resampling> find(std::int64_t height, std::int64_t width);

  const Recipe recipe_;
  const std::size_t capacity_;
  std::mutex mutex_;
  std::uint64_t uses_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace trtinfer::preprocess
