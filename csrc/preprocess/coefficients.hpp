// The integer weights of one resampling pass, computed in double on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "preprocess/recipe.hpp"
#include "preprocess/resample.hpp"

namespace trtinfer::preprocess {

enum class Axis { kRows, kColumns };

// Taps and weights of `taps.size()` neighboring output pixels; output i has its weights at
// weights[i * stride], taps[i].count of them, the rest of its stride zero.
struct Coefficients {
  int stride = 0;
  std::vector<Taps> taps;
  std::vector<std::int32_t> weights;

  int size() const noexcept { return static_cast<int>(taps.size()); }
  // First and one past the last source pixel that any output needs.
  std::int32_t source_begin() const noexcept;
  std::int32_t source_end() const noexcept;
};

// The weights of outputs [first, first + count) when `source` pixels become `target`.
Coefficients make_coefficients(Filter filter, Axis axis, std::int64_t source, std::int64_t target,
                               std::int64_t first, int count);

}  // namespace trtinfer::preprocess
