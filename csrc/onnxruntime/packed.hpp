#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trtinfer::onnxruntime {

/// Bits of an element that shares its byte with others; 0 for all other types.
inline int packed_bits(std::int32_t element_type) {
  switch (element_type) {
    case 21:  // uint4
    case 22:  // int4
      return 4;
    case 24:  // uint2
    case 25:  // int2
      return 2;
    default:
      return 0;
  }
}

/// Packs elements that lie in the low bits of one byte each, the first one lowest.
inline std::vector<std::byte> pack(const std::byte* elements, std::size_t count, int bits) {
  const std::size_t per_byte = 8 / static_cast<std::size_t>(bits);
  const std::byte mask{static_cast<unsigned char>((1 << bits) - 1)};
  std::vector<std::byte> packed((count + per_byte - 1) / per_byte);
  for (std::size_t i = 0; i < count; ++i) {
    packed[i / per_byte] |= (elements[i] & mask) << static_cast<int>(i % per_byte) * bits;
  }
  return packed;
}

/// The reverse of `pack`; the high bits of each element are 0.
inline void unpack(const std::byte* packed, std::size_t count, int bits, std::byte* elements) {
  const std::size_t per_byte = 8 / static_cast<std::size_t>(bits);
  const std::byte mask{static_cast<unsigned char>((1 << bits) - 1)};
  for (std::size_t i = 0; i < count; ++i) {
    elements[i] = packed[i / per_byte] >> static_cast<int>(i % per_byte) * bits & mask;
  }
}

}  // namespace trtinfer::onnxruntime
