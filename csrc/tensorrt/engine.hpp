#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensorrt/abi.hpp"
#include "tensorrt/library.hpp"
#include "tensorrt/object.hpp"

namespace trtinfer::tensorrt {

using Shape = std::vector<std::int64_t>;

Shape to_shape(const Dims& dims);
Dims to_dims(const Shape& shape);
std::string to_text(const Shape& shape);  // "(1, 3, 224, 224)"

/// ONNX's number of a data type (onnx.TensorProto.DataType); 0 for one that ONNX does not have.
std::int32_t onnx_element_type(DataType type);

/// One input or output of an engine. Dimensions that a profile leaves open are -1 in `shape`.
struct IoTensor {
  std::string name;
  bool is_input = false;
  bool is_on_host = false;  // a shape tensor, whose address is one of host memory
  DataType dtype = DataType::kFloat;
  Shape shape;
};

/// The shapes of one input that a profile admits.
struct ShapeRange {
  Shape min, opt, max;
};

/// A deserialized plan. Immutable, so any number of threads may make execution contexts of it. The
/// plan is code: only plans of a trusted source may be opened.
class Engine {
 public:
  /// Deserializes on the current CUDA device. Throws Error with TensorRT's reason, and cuda::Error
  /// when the GPU is full or has failed.
  Engine(const Library& library, std::span<const std::byte> plan);

  const Library& library() const { return library_; }
  int device() const { return device_; }
  void* interface() const { return engine_.get(); }
  const std::vector<IoTensor>& tensors() const { return tensors_; }
  const std::string& name() const { return name_; }
  std::int32_t profile_count() const { return profile_count_; }
  /// Bytes of scratch memory that an execution context needs.
  std::int64_t device_memory_size() const;
  /// Throws Error for a name that is no input, or a profile that is not there.
  ShapeRange profile_shapes(const std::string& input, std::int32_t profile) const;

 private:
  void read_tensors();

  const Library& library_;
  const int device_;
  Object runtime_;  // declared before the engine, which must go first
  Object engine_;
  std::string name_;
  std::int32_t profile_count_ = 0;
  std::vector<IoTensor> tensors_;
};

}  // namespace trtinfer::tensorrt
