// Tensors on a GPU as others take them.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "bindings/device_tensor.hpp"
#include "bindings/element_types.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Shape;

// In bytes.
Shape DeviceTensor::strides() const {
  Shape strides = contiguous_strides(shape_, type_);
  if (!shape_.empty() && is_dense()) strides[0] = static_cast<std::int64_t>(row_stride_);
  return strides;
}

py::capsule DeviceTensor::to_dlpack(py::handle stream, py::handle max_version) const {
  const KnownType* known = find_known(type_);
  if (known == nullptr || (!is_dense() && pipeline::element_count(shape_) > 0)) {
    throw py::buffer_error("a tensor with gaps, or of a type that DLPack has not, is not given on");
  }
  if (ready_ != nullptr) {
    const auto number = stream.is_none() ? 1 : stream.cast<std::intptr_t>();
    const cuda::CurrentDevice current(device_);
    if (number != -1)
      ready_->block(reinterpret_cast<void*>(number));  // NOLINT: as the protocol says
  }
  Shape shape = shape_, element_strides = strides();
  for (std::int64_t& stride : element_strides) {
    stride /= static_cast<std::int64_t>(pipeline::element_bytes(type_));
  }
  const dlpack::Tensor tensor{
      const_cast<std::byte*>(data_),  // NOLINT: DLPack knows no const
      {dlpack::kCuda, device_},      static_cast<std::int32_t>(shape.size()),
      {known->code, known->bits, 1}, shape.data(),
      element_strides.data(),        0};
  const bool versioned = !max_version.is_none() && max_version.cast<py::tuple>()[0].cast<int>() > 0;
  return dlpack::give(tensor, owner_, versioned);
}

py::dict DeviceTensor::to_interface() const {
  const KnownType* known = find_known(type_);
  const std::string name = known == nullptr ? std::string() : typestr(*known);
  if (name.empty()) throw py::attribute_error("NumPy has no name for the type of its elements");
  if (ready_ != nullptr) {
    const Unlocked unlocked;
    ready_->synchronize();
  }
  py::dict interface;
  interface["shape"] = py::tuple(py::cast(shape_));
  interface["strides"] = py::tuple(py::cast(strides()));
  interface["typestr"] = name;
  interface["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(data_), false);
  interface["stream"] = py::none();
  interface["version"] = 3;
  return interface;
}

py::array DeviceTensor::to_host() const {
  const py::object dtypes = py::module_::import("trtinfer.types").attr("DTYPES");
  py::array array(py::dtype(dtypes[py::int_(static_cast<int>(type_))]), shape_);
  if (array.size() == 0) return array;
  auto* const to = static_cast<std::byte*>(array.mutable_data());
  const Unlocked unlocked;
  pipeline::fetch(input(), to);
  return array;
}

}  // namespace trtinfer::bindings
