// Types of elements, as other libraries name them.
#pragma once

#include <cstdint>
#include <string>

#include "bindings/dlpack.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::bindings {

struct KnownType {
  std::uint8_t code, bits;  ///< as in DLPack
  pipeline::ElementType type;
};

/// Null for a type that DLPack has not.
const KnownType* find_known(pipeline::ElementType type);

/// kUndefined for a type that no model has.
pipeline::ElementType element_type(const dlpack::DataType& dtype);

/// Of NumPy's notation, as "<f4"; likewise.
pipeline::ElementType element_type(const std::string& typestr);

/// In NumPy's notation; empty where it has none.
std::string typestr(const KnownType& known);

/// In bytes, of elements in order without gaps.
pipeline::Shape contiguous_strides(const pipeline::Shape& shape, pipeline::ElementType type);

}  // namespace trtinfer::bindings
