// Normalization as a table: an output value for each byte of each output channel.
#pragma once

#include <array>
#include <cstdint>

#include "preprocess/recipe.hpp"

namespace trtinfer::preprocess {

inline constexpr int kChannels = 3;
inline constexpr int kTableSize = kChannels * 256;

// Entry [channel * 256 + pixel], channel in the output's order. float16 is kept as its bits.
struct NormalizationTable {
  std::array<float, kTableSize> float32;
  std::array<std::uint16_t, kTableSize> float16;
};

// (pixel / scale - mean) / std in float32, as torch's ToTensor and Normalize round it; float16
// is that value rounded to nearest even.
NormalizationTable make_table(const Recipe& recipe);

// The bits of the nearest IEEE half, ties to even; too large becomes infinity.
std::uint16_t to_half(float value) noexcept;

}  // namespace trtinfer::preprocess
