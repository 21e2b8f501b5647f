#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace trtinfer::pipeline {

using Shape = std::vector<std::int64_t>;

/// Element types, numbered as in ONNX Runtime's C interface (up to 23 as in
/// onnx.TensorProto.DataType).
enum class ElementType : std::int32_t {
  kUndefined = 0,
  kFloat32 = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kUint32 = 12,
  kUint64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBfloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUint4 = 21,
  kInt4 = 22,
  kUint2 = 24,
  kInt2 = 25,
  kFloat8E8M0 = 26,
};

/// Bytes of one element; 0 for types that have no fixed size of whole bytes (string, 2-bit, 4-bit).
inline std::size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kUint8:
    case ElementType::kInt8:
    case ElementType::kBool:
    case ElementType::kFloat8E4M3FN:
    case ElementType::kFloat8E4M3FNUZ:
    case ElementType::kFloat8E5M2:
    case ElementType::kFloat8E5M2FNUZ:
    case ElementType::kFloat8E8M0:
      return 1;
    case ElementType::kUint16:
    case ElementType::kInt16:
    case ElementType::kFloat16:
    case ElementType::kBfloat16:
      return 2;
    case ElementType::kFloat32:
    case ElementType::kInt32:
    case ElementType::kUint32:
      return 4;
    case ElementType::kInt64:
    case ElementType::kFloat64:
    case ElementType::kUint64:
    case ElementType::kComplex64:
      return 8;
    case ElementType::kComplex128:
      return 16;
    default:
      return 0;
  }
}

/// One input or output as a request sees it: `shape` is a sample's (without the batch axis) when
/// the model is batched, else the whole tensor's; -1 marks a dimension that varies from call to
/// call.
struct TensorSpec {
  std::string name;
  ElementType type = ElementType::kUndefined;
  Shape shape;

  bool is_static() const {
    for (std::int64_t dim : shape) {
      if (dim < 0) return false;
    }
    return true;
  }
};

/// Elements of a shape without unknown dimensions; 1 for a scalar.
inline std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (std::int64_t dim : shape) count *= dim;
  return count;
}

inline std::size_t byte_count(ElementType type, const Shape& shape) {
  return element_bytes(type) * static_cast<std::size_t>(element_count(shape));
}

}  // namespace trtinfer::pipeline
