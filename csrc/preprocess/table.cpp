#include "preprocess/table.hpp"

#include <bit>

namespace trtinfer::preprocess {

std::uint16_t to_half(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return sign | 0x7e00U;   // not a number
  if (magnitude >= 0x477ff000U) return sign | 0x7c00U;  // rounds beyond the largest half
  if (magnitude < 0x38800000U) {                        // subnormal half, or zero
    // Adding one half of float32's grid at 2^-1 leaves the value in units of 2^-24, rounded.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return sign | static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U);
  }
  const std::uint32_t odd = (magnitude >> 13) & 1U;
  return sign | static_cast<std::uint16_t>((magnitude - 0x38000000U + 0xfffU + odd) >> 13);
}

NormalizationTable make_table(const Recipe& recipe) {
  NormalizationTable table{};
  for (int c = 0; c < kChannels; ++c) {
    for (int pixel = 0; pixel < 256; ++pixel) {
      const float value =
          (static_cast<float>(pixel) / recipe.scale - recipe.mean[c]) / recipe.std[c];
      table.float32[c * 256 + pixel] = value;
      table.float16[c * 256 + pixel] = to_half(value);
    }
  }
  return table;
}

}  // namespace trtinfer::preprocess
