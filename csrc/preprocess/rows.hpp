// The passes over rows of pixels, and the writing of normalized rows, on the CPU.
#pragma once

#include <array>
#include <cstdint>

#include "preprocess/columns_avx2.hpp"
#include "preprocess/recipe.hpp"
#include "preprocess/resample.hpp"
#include "preprocess/resampling.hpp"

namespace trtinfer::preprocess {

// A horizontal pass over two rows at once, which may be the same one. sources point at column 0
// of rows of RGB bytes; outputs hold 3 * columns values and kRowSlack more that may be
// overwritten.
inline constexpr int kRowSlack = 8;
template <class Arithmetic>
void resample_columns(const Resampling& resampling, const Sources& sources,
                      const Outputs<Arithmetic>& outputs);

// A vertical pass: output[x] from rows[0..taps)[x].
template <class Arithmetic>
void resample_rows(const std::int32_t* weights, const typename Arithmetic::Middle* const* rows,
                   int taps, int width, std::uint8_t* output);

// Splits a row of RGB bytes into three rows of normalized values.
template <class Element>
void write_planes(const std::uint8_t* pixels, int columns, const Element* table, ChannelOrder order,
                  const std::array<Element*, 3>& planes);

// False: use the portable code even where the CPU has AVX2 (for tests and measurements).
void allow_simd(bool allowed) noexcept;

}  // namespace trtinfer::preprocess
