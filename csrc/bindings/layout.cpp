#include "bindings/layout.hpp"

#include <cstring>

#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Shape;
using pipeline::TensorSpec;

namespace {

// Below this, copying into NumPy's own memory is cheaper than wrapping ours.
constexpr std::size_t kCopyBytes = 4096;
static_assert(pipeline::Request::kNearOutputs < kCopyBytes, "they end with the request");

bool fits(const TensorSpec& spec, const std::int64_t* shape) {
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    if (spec.shape[i] >= 0 && spec.shape[i] != shape[i]) return false;
  }
  return true;
}

/// The dict's value, which without a GIL another thread may take out of it meanwhile; or null.
py::object find(py::handle dict, py::handle key) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* value = nullptr;
  PyDict_GetItemRef(dict.ptr(), key.ptr(), &value);
#else
  PyObject* value = Py_XNewRef(PyDict_GetItemWithError(dict.ptr(), key.ptr()));
#endif
  if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

// py::array's constructor builds the shape and the strides in vectors of its own first.
py::array new_array(const py::dtype& dtype, const Shape& shape) {
  static_assert(sizeof(std::int64_t) == sizeof(Py_intptr_t));
  const auto& api = py::detail::npy_api::get();
  const auto rank = static_cast<int>(shape.size());
  const auto* dims = reinterpret_cast<const Py_intptr_t*>(shape.data());
  PyObject* descriptor = py::object(dtype).release().ptr();  // the array takes it over
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, descriptor, rank, dims, nullptr,
                                              nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(array);
}

/// Null also when it cannot be read: the explaining path says why.
std::shared_ptr<const DeviceTensor> find_on_gpu(py::handle value) {
  if (py::isinstance<DeviceTensor>(value)) return value.cast<std::shared_ptr<DeviceTensor>>();
  try {
    return DeviceTensor::read(value, std::nullopt);
  } catch (const UnreadableTensor&) {
    return nullptr;
  }
}

py::capsule keep_alive(std::shared_ptr<void> owner) {
  return {new std::shared_ptr<void>(std::move(owner)), [](void* held) {
            auto* owner = static_cast<std::shared_ptr<void>*>(held);
            delete owner;
          }};
}

}  // namespace

bool Layout::match_one(std::size_t input, py::handle value, ParsedInputs& parsed) const {
  const Tensor& tensor = inputs_[input];
  if (!py::isinstance<py::array>(value)) return match_on_gpu(input, value, parsed);
  py::array array = py::reinterpret_borrow<py::array>(value);
  if (!array.dtype().is(tensor.dtype) && !array.dtype().equal(tensor.dtype)) return false;
  if ((array.flags() & py::array::c_style) == 0) return false;
  const auto rank = static_cast<std::size_t>(array.ndim());
  if (!match_shape(input, array.shape(), rank, parsed)) return false;
  parsed.arrays.push_back(std::move(array));
  return true;
}

bool Layout::match_shape(std::size_t input, const std::int64_t* shape, std::size_t rank,
                         ParsedInputs& parsed) const {
  const TensorSpec& spec = inputs_[input].spec;
  const bool has_batch_axis = batched_ && rank == spec.shape.size() + 1;
  if (rank != spec.shape.size() && !has_batch_axis) return false;
  if (!fits(spec, shape + (has_batch_axis ? 1 : 0))) return false;
  const std::int64_t rows = has_batch_axis ? shape[0] : 1;
  if (rows <= 0) return false;
  if (input == 0) {
    parsed.rows = static_cast<std::uint32_t>(rows);
    parsed.has_batch_axis = has_batch_axis;
  } else if (parsed.rows != rows || parsed.has_batch_axis != has_batch_axis) {
    return false;
  }
  return true;
}

bool Layout::match_on_gpu(std::size_t input, py::handle value, ParsedInputs& parsed) const {
  std::shared_ptr<const DeviceTensor> tensor = find_on_gpu(value);
  if (tensor == nullptr) return false;
  const TensorSpec& spec = inputs_[input].spec;
  if (auto samples = tensor->as_samples(spec, batched_)) tensor = std::move(samples);
  const Shape& shape = tensor->shape();
  if (tensor->type() != spec.type || !tensor->is_dense()) return false;
  if (!match_shape(input, shape.data(), shape.size(), parsed)) return false;
  parsed.arrays.push_back(py::reinterpret_steal<py::array>(py::handle()));
  parsed.device_tensors.resize(inputs_.size());
  parsed.device_tensors[input] = std::move(tensor);
  return true;
}

bool Layout::match(py::handle x, ParsedInputs& parsed) const {
  if (!PyDict_CheckExact(x.ptr())) return inputs_.size() == 1 && match_one(0, x, parsed);
  if (static_cast<std::size_t>(PyDict_Size(x.ptr())) != inputs_.size()) return false;
  parsed.arrays.reserve(inputs_.size());
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const py::object value = find(x, inputs_[i].name);
    if (!value || !match_one(i, value, parsed)) return false;
  }
  return true;
}

std::vector<Shape> Layout::unit_shapes(const ParsedInputs& parsed, std::uint32_t rows) const {
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < parsed.arrays.size(); ++i) {
    const py::array& array = parsed.arrays[i];
    Shape shape = array ? Shape(array.shape(), array.shape() + array.ndim())
                        : parsed.device_tensors[i]->shape();
    if (batched_ && !parsed.has_batch_axis) shape.insert(shape.begin(), 1);
    if (batched_) shape[0] = rows;
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

void Layout::fill(const ParsedInputs& parsed, std::uint32_t first, pipeline::Claim& claim) const {
  if (parsed.any_on_gpu()) fill_from_gpu(parsed, first, claim);
  for (std::size_t i = 0; i < parsed.arrays.size(); ++i) {
    if (!parsed.arrays[i]) continue;
    const pipeline::SlotFill fill = filling(i, parsed, first, claim);
    if (fill.bytes < kUnlockedCopyBytes) {
      pipeline::fill_slot(fill);
    } else {
      const Unlocked unlocked;
      pipeline::fill_slot(fill);
    }
  }
}

pipeline::SlotFill Layout::filling(std::size_t input, const ParsedInputs& parsed,
                                   std::uint32_t first, const pipeline::Claim& claim) const {
  const py::array& array = parsed.arrays[input];
  const std::size_t row_bytes = static_cast<std::size_t>(array.nbytes()) / parsed.rows;
  const auto* from = static_cast<const std::byte*>(array.data()) + row_bytes * first;
  return claim.filling(input, from, row_bytes * (batched_ ? claim.rows() : 1));
}

void Layout::fill_from_gpu(const ParsedInputs& parsed, std::uint32_t first,
                           pipeline::Claim& claim) const {
  std::vector<pipeline::DeviceInput> inputs(inputs_.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const DeviceTensor* tensor = parsed.device_tensors[i].get();
    if (tensor == nullptr) continue;
    inputs[i] = parsed.has_batch_axis ? tensor->input(first, claim.rows()) : tensor->input();
  }
  if (claim.reads_device_inputs()) return claim.fill(std::move(inputs));
  const Unlocked unlocked;
  claim.fill(std::move(inputs));
}

py::dict Layout::views(const std::shared_ptr<pipeline::Pipeline>& pipeline,
                       const pipeline::Claim& claim, bool has_batch_axis) const {
  py::dict views;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Shape shape = claim.shapes().empty() ? inputs_[i].spec.shape : claim.shapes()[i];
    if (claim.shapes().empty() && batched_ && has_batch_axis) {
      shape.insert(shape.begin(), claim.rows());
    } else if (!claim.shapes().empty() && batched_ && !has_batch_axis) {
      shape.erase(shape.begin());
    }
    views[inputs_[i].name] =
        py::array(inputs_[i].dtype, shape, claim.inputs()[i], keep_alive(pipeline));
  }
  return views;
}

py::dict Layout::outputs(const pipeline::Request& request) const {
  py::dict result;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const pipeline::OutputTensor& tensor = request.outputs[i];
    const Shape& shape = request.output_shape(i, outputs_[i].spec);
    if (tensor.device) {
      result[outputs_[i].name] = DeviceTensor::within(
          tensor.data, {tensor.data.get(), *tensor.device}, outputs_[i].spec.type, shape);
      continue;
    }
    const std::size_t bytes = pipeline::byte_count(outputs_[i].spec.type, shape);
    if (bytes < kCopyBytes) {
      py::array array = new_array(outputs_[i].dtype, shape);
      if (bytes > 0) std::memcpy(array.mutable_data(), tensor.data.get(), bytes);
      result[outputs_[i].name] = std::move(array);
    } else {
      result[outputs_[i].name] =
          py::array(outputs_[i].dtype, shape, tensor.data.get(), keep_alive(tensor.data));
    }
  }
  return result;
}

}  // namespace trtinfer::bindings
