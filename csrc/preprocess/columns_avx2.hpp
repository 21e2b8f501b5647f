// The horizontal pass with AVX2: the sums of resample.hpp, two rows at a time.
#pragma once

#include <array>
#include <cstdint>

#include "preprocess/resample.hpp"
#include "preprocess/resampling.hpp"

namespace trtinfer::preprocess {

// Whether this CPU (and this build) can run the functions below.
bool has_avx2() noexcept;

// Two rows at column 0, and where their resampled values go.
using Sources = std::array<const std::uint8_t*, 2>;
template <class Arithmetic>
using Outputs = std::array<typename Arithmetic::Middle*, 2>;

// Do the leading columns whose reads stay within the rows; return how many. See
// resample_columns in rows.hpp. The first argument only chooses the function.
int resample_columns_avx2(PillowArithmetic arithmetic, const Resampling& resampling,
                          const Sources& sources, const Outputs<PillowArithmetic>& outputs);
int resample_columns_avx2(OpencvArithmetic arithmetic, const Resampling& resampling,
                          const Sources& sources, const Outputs<OpencvArithmetic>& outputs);

}  // namespace trtinfer::preprocess
