// Tensors that other libraries keep on a GPU.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>

#include "bindings/dlpack.hpp"
#include "cuda/stream.hpp"
#include "pipeline/device_input.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::bindings {

/// A tensor of another library cannot be read where it lies.
class UnreadableTensor : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A tensor in memory that a GPU reads, of another library or a session's output, and the end of
/// the work that writes it. Made with the GIL held; immutable then.
class DeviceTensor {
 public:
  /// Whether `value` is such a tensor. Throws UnreadableTensor for the devices of other makers.
  static bool is_on_gpu(pybind11::handle value);

  /// Reads DLPack or `__cuda_array_interface__`; null for a value that is not on a GPU. What has
  /// been enqueued so far on `stream` (see stream_handle) belongs to the work that writes it,
  /// beside what the value itself says. Throws UnreadableTensor.
  static std::shared_ptr<DeviceTensor> read(pybind11::handle value, std::optional<void*> stream);

  /// A tensor without gaps in memory that `owner` keeps, all of it written before this call.
  struct Place {
    const std::byte* data;
    int device;
  };
  static std::shared_ptr<DeviceTensor> within(std::shared_ptr<const void> owner, Place place,
                                              pipeline::ElementType type, pipeline::Shape shape);

  /// The same as a capsule of DLPack, for work on `stream` (see __dlpack__ of the array API).
  pybind11::capsule to_dlpack(pybind11::handle stream, pybind11::handle max_version) const;

  /// The same as `__cuda_array_interface__`, once it is written.
  pybind11::dict to_interface() const;

  /// A copy in host memory, once it is written.
  pybind11::array to_host() const;

  pipeline::ElementType type() const { return type_; }
  const pipeline::Shape& shape() const { return shape_; }
  int device() const { return device_; }

  /// Whether it has elements, none of which overlap, and all axes but the first are contiguous.
  bool is_dense() const { return row_stride_ > 0; }

  /// Plain bytes, as of an allocation that has no type, read as samples of `spec`; null when they
  /// cannot be. As many bytes as a sample has are one; with `batched`, a multiple is several.
  std::shared_ptr<const DeviceTensor> as_samples(const pipeline::TensorSpec& spec,
                                                 bool batched) const;

  /// What a dense tensor, or `count` rows of its first axis, are to a pipeline, which borrows them.
  pipeline::DeviceInput input() const;
  pipeline::DeviceInput input(std::size_t first, std::size_t count) const;

 private:
  void read_dlpack(pybind11::handle value, dlpack::Device device, std::optional<void*> stream);
  void read_interface(pybind11::handle value, std::optional<void*> stream);
  pipeline::Shape strides() const;
  void set_layout(pipeline::Shape shape, const pipeline::Shape& strides);

  const std::byte* data_ = nullptr;
  pipeline::ElementType type_ = pipeline::ElementType::kUndefined;
  pipeline::Shape shape_;
  std::size_t row_bytes_ = 0, row_stride_ = 0;  // along the first axis
  int device_ = 0;
  std::shared_ptr<const cuda::Event> ready_;
  std::shared_ptr<const void> owner_;
};

}  // namespace trtinfer::bindings
