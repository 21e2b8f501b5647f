#include "bindings/element_types.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

namespace trtinfer::bindings {

using pipeline::ElementType;
using pipeline::Shape;

namespace {

constexpr std::array kKnownTypes{
    KnownType{0, 8, ElementType::kInt8},
    KnownType{0, 16, ElementType::kInt16},
    KnownType{0, 32, ElementType::kInt32},
    KnownType{0, 64, ElementType::kInt64},
    KnownType{1, 8, ElementType::kUint8},
    KnownType{1, 16, ElementType::kUint16},
    KnownType{1, 32, ElementType::kUint32},
    KnownType{1, 64, ElementType::kUint64},
    KnownType{2, 16, ElementType::kFloat16},
    KnownType{2, 32, ElementType::kFloat32},
    KnownType{2, 64, ElementType::kFloat64},
    KnownType{4, 16, ElementType::kBfloat16},
    KnownType{5, 64, ElementType::kComplex64},
    KnownType{5, 128, ElementType::kComplex128},
    KnownType{6, 8, ElementType::kBool},
    KnownType{10, 8, ElementType::kFloat8E4M3FN},
    KnownType{11, 8, ElementType::kFloat8E4M3FNUZ},
    KnownType{12, 8, ElementType::kFloat8E5M2},
    KnownType{13, 8, ElementType::kFloat8E5M2FNUZ},
    KnownType{14, 8, ElementType::kFloat8E8M0},
};

constexpr std::string_view kKinds = "iuf??cb";  // NumPy's, at the place of DLPack's codes

}  // namespace

const KnownType* find_known(ElementType type) {
  const auto* found = std::find_if(kKnownTypes.begin(), kKnownTypes.end(),
                                   [&](const KnownType& known) { return known.type == type; });
  return found == kKnownTypes.end() ? nullptr : found;
}

ElementType element_type(const dlpack::DataType& dtype) {
  for (const KnownType& known : kKnownTypes) {
    if (known.code == dtype.code && known.bits == dtype.bits && dtype.lanes == 1) return known.type;
  }
  return ElementType::kUndefined;
}

ElementType element_type(const std::string& typestr) {
  if (typestr.size() < 3 || typestr[0] == '>') return ElementType::kUndefined;
  const std::size_t code = kKinds.find(typestr[1]);
  const int bytes = std::atoi(typestr.c_str() + 2);
  if (code == std::string_view::npos || bytes > 16) return ElementType::kUndefined;
  return element_type(
      dlpack::DataType{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(8 * bytes), 1});
}

std::string typestr(const KnownType& known) {
  if (known.code >= kKinds.size() || kKinds[known.code] == '?') return {};
  return (known.bits == 8 ? "|" : "<") + std::string(1, kKinds[known.code]) +
         std::to_string(known.bits / 8);
}

Shape contiguous_strides(const Shape& shape, ElementType type) {
  auto stride = static_cast<std::int64_t>(pipeline::element_bytes(type));
  Shape strides(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0; stride *= shape[axis]) strides[axis] = stride;
  return strides;
}

}  // namespace trtinfer::bindings
