// The arithmetic of resampling, once for CPU and GPU: integers only, so that both give the same
// bytes. A resize is two passes of weighted sums with a rounded value between them.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define TRTINFER_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TRTINFER_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace trtinfer::preprocess {

// The source pixels that one output pixel is made of: [first, first + count). first may be -1 and
// the end one past the source for OpenCV's rows: such rows are the nearest real row.
struct Taps {
  std::int32_t first;
  std::int32_t count;
};

TRTINFER_HOST_DEVICE std::uint8_t clip_to_byte(std::int32_t value) {
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Pillow: weights with 22 fraction bits, the value between the passes rounded to a byte.
struct PillowArithmetic {
  using Middle = std::uint8_t;
  static constexpr int kFractionBits = 22;
  static constexpr std::int32_t kFirstStart = 1 << (kFractionBits - 1);
  static constexpr std::int32_t kSecondStart = kFirstStart;

  TRTINFER_HOST_DEVICE static std::int32_t first_term(std::int32_t weight, std::int32_t value) {
    return weight * value;
  }
  TRTINFER_HOST_DEVICE static Middle first_result(std::int32_t sum) {
    return clip_to_byte(sum >> kFractionBits);
  }
  TRTINFER_HOST_DEVICE static std::int32_t second_term(std::int32_t weight, std::int32_t value) {
    return weight * value;
  }
  TRTINFER_HOST_DEVICE static std::uint8_t second_result(std::int32_t sum) {
    return clip_to_byte(sum >> kFractionBits);
  }
};

// OpenCV's INTER_LINEAR of bytes: two taps, weights with 11 fraction bits, the value between the
// passes keeps 7 fraction bits, and each term of the second pass is cut off by itself.
struct OpencvArithmetic {
  using Middle = std::int16_t;
  static constexpr int kFractionBits = 11;
  static constexpr std::int32_t kFirstStart = 0;
  static constexpr std::int32_t kSecondStart = 2;

  TRTINFER_HOST_DEVICE static std::int32_t first_term(std::int32_t weight, std::int32_t value) {
    return weight * value;
  }
  TRTINFER_HOST_DEVICE static Middle first_result(std::int32_t sum) {
    return static_cast<Middle>(sum >> 4);
  }
  TRTINFER_HOST_DEVICE static std::int32_t second_term(std::int32_t weight, std::int32_t value) {
    return (weight * value) >> 16;
  }
  TRTINFER_HOST_DEVICE static std::uint8_t second_result(std::int32_t sum) {
    return clip_to_byte(sum >> 2);
  }
};

}  // namespace trtinfer::preprocess
