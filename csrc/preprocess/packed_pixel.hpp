// Pixels between the two passes on the GPU.
#pragma once

#include <cstdint>

#include "preprocess/resample.hpp"

namespace trtinfer::preprocess {

// Three values between the passes, in one word that a thread reads at once.
template <class Middle>
struct PackedPixel;

template <>
struct PackedPixel<std::uint8_t> {
  std::uint32_t bits;

  TRTINFER_HOST_DEVICE static PackedPixel pack(std::uint8_t r, std::uint8_t g, std::uint8_t b) {
    return {static_cast<std::uint32_t>(r) | static_cast<std::uint32_t>(g) << 8 |
            static_cast<std::uint32_t>(b) << 16};
  }
  TRTINFER_HOST_DEVICE std::int32_t channel(int c) const { return (bits >> (8 * c)) & 0xffU; }
};

template <>
struct PackedPixel<std::int16_t> {
  std::uint64_t bits;

  // Values between OpenCV's passes are never negative.
  TRTINFER_HOST_DEVICE static PackedPixel pack(std::int16_t r, std::int16_t g, std::int16_t b) {
    return {static_cast<std::uint64_t>(r) | static_cast<std::uint64_t>(g) << 16 |
            static_cast<std::uint64_t>(b) << 32};
  }
  TRTINFER_HOST_DEVICE std::int32_t channel(int c) const {
    return static_cast<std::int32_t>((bits >> (16 * c)) & 0xffffU);
  }
};

}  // namespace trtinfer::preprocess
