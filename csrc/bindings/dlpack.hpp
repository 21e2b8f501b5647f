// DLPack, by which array libraries hand tensors to each other (https://dmlc.github.io/dlpack).
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>

namespace trtinfer::bindings::dlpack {

// These have DLPack's layout in memory.
struct Device {
  std::int32_t type, id;
};
struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t rank;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: contiguous
  std::uint64_t byte_offset;
};

inline constexpr std::int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;

/// Where a value that speaks DLPack lies; nothing for one that does not.
std::optional<Device> device_of(pybind11::handle value);

/// A capsule for another library, which keeps `owner` alive; of DLPack 1.0 if `versioned`. Of the
/// tensor, shape and strides are copied.
pybind11::capsule give(const Tensor& tensor, std::shared_ptr<const void> owner, bool versioned);

/// Takes a tensor over, whose producer makes `stream` wait until it is written; given back, with
/// the GIL, by the last owner. Raises what the producer raises.
std::shared_ptr<const Tensor> take(pybind11::handle value, const void* stream);

}  // namespace trtinfer::bindings::dlpack
