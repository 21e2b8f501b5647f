#include "bindings/device_tensor.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bindings/element_types.hpp"
#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/stream.hpp"
#include "cuda/device.hpp"
#include "cuda/error.hpp"
#include "cuda/handover.hpp"
#include "cuda/memory.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::ElementType;
using pipeline::Shape;
using pipeline::TensorSpec;

namespace {

constexpr const char* kInterface = "__cuda_array_interface__";
constexpr std::size_t kMostStride = 0x7fffffff;  // of cudaMemcpy2D

std::string describe(py::handle value) {
  return "an object of type " + py::str(py::type::of(value).attr("__name__")).cast<std::string>();
}

[[noreturn]] void refuse(py::handle value, const std::string& reason) {
  throw UnreadableTensor(describe(value) + " cannot be read where it lies: " + reason);
}

/// Asks another library, whose errors become ours.
template <typename Question>
auto ask(py::handle value, const Question& question) {
  try {
    return question();
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    refuse(value, py::str(error.value()).cast<std::string>());
  } catch (const py::cast_error& error) {
    refuse(value, error.what());
  }
}

/// The entries of `__cuda_array_interface__` that are used here.
struct Interface {
  explicit Interface(const py::dict& entries)
      : data(entries["data"].cast<py::tuple>()[0].cast<std::uintptr_t>()),
        typestr(entries["typestr"].cast<std::string>()),
        shape(entries["shape"].cast<Shape>()),
        has_mask(entries.contains("mask") && !entries["mask"].is_none()) {
    if (entries.contains("strides")) strides = entries["strides"].cast<std::optional<Shape>>();
    if (!entries.contains("stream") || entries["stream"].is_none()) return;
    stream = stream_handle(entries["stream"]);
  }

  std::uintptr_t data;
  std::string typestr;
  Shape shape;
  bool has_mask;
  std::optional<Shape> strides;  // in bytes
  std::optional<void*> stream;
};

bool is_gpu(py::handle value, dlpack::Device device) {
  switch (device.type) {
    case dlpack::kCpu:
      return false;
    case dlpack::kCuda:
    case dlpack::kCudaHost:
    case dlpack::kCudaManaged:
      return true;
    default:
      refuse(value, "it is on a device of DLPack's type " + std::to_string(device.type) +
                        "; bring it to host memory");
  }
}

}  // namespace

bool DeviceTensor::is_on_gpu(py::handle value) {
  if (py::isinstance<DeviceTensor>(value)) return true;
  const std::optional<dlpack::Device> device = ask(value, [&] { return dlpack::device_of(value); });
  return device ? is_gpu(value, *device) : py::hasattr(value, kInterface);
}

std::shared_ptr<DeviceTensor> DeviceTensor::read(py::handle value, std::optional<void*> stream) {
  const std::optional<dlpack::Device> device = ask(value, [&] { return dlpack::device_of(value); });
  if (device ? !is_gpu(value, *device) : !py::hasattr(value, kInterface)) return nullptr;
  auto tensor = std::make_shared<DeviceTensor>();
  try {
    if (device) {
      tensor->read_dlpack(value, *device, stream);
    } else {
      tensor->read_interface(value, stream);
    }
    return tensor;
  } catch (const cuda::Error& error) {
    refuse(value, std::string(error.what()) + "; bring it to host memory (.cpu(), .get())");
  }
}

std::shared_ptr<DeviceTensor> DeviceTensor::within(std::shared_ptr<const void> owner, Place place,
                                                   ElementType type, Shape shape) {
  auto tensor = std::make_shared<DeviceTensor>();
  tensor->data_ = place.data;
  tensor->device_ = place.device;
  tensor->type_ = type;
  tensor->owner_ = std::move(owner);
  const Shape strides = contiguous_strides(shape, type);
  tensor->set_layout(std::move(shape), strides);
  return tensor;
}

void DeviceTensor::read_dlpack(py::handle value, dlpack::Device device,
                               std::optional<void*> stream) {
  // The producer's current stream is that of the current GPU. Host memory may be of none.
  const cuda::CurrentDevice current(std::max(device.id, 0));
  const cuda::HandoverStream handover;
  if (stream) handover.wait_for(*stream);
  auto tensor = ask(value, [&] { return dlpack::take(value, handover.get().get()); });
  ready_ = handover.record();
  device_ = cuda::current_device();
  data_ = static_cast<const std::byte*>(tensor->data) + tensor->byte_offset;
  type_ = element_type(tensor->dtype);
  Shape shape(tensor->shape, tensor->shape + tensor->rank);
  const auto element_bytes = static_cast<std::int64_t>(pipeline::element_bytes(type_));
  Shape strides = contiguous_strides(shape, type_);
  if (tensor->strides != nullptr) {
    for (std::size_t i = 0; i < shape.size(); ++i) strides[i] = tensor->strides[i] * element_bytes;
  }
  set_layout(std::move(shape), strides);
  owner_ = std::move(tensor);
}

void DeviceTensor::read_interface(py::handle value, std::optional<void*> stream) {
  const Interface interface =
      ask(value, [&] { return Interface(value.attr(kInterface).cast<py::dict>()); });
  if (interface.has_mask) refuse(value, "masks are not supported");
  data_ = reinterpret_cast<const std::byte*>(interface.data);  // NOLINT: Python has numbers
  const std::optional<int> device = cuda::device_of(data_);
  if (!device) refuse(value, "its address is not of memory that a GPU reads");
  device_ = *device;
  if (interface.stream || stream) {
    const cuda::CurrentDevice current(device_);
    const cuda::HandoverStream handover;
    if (interface.stream) handover.wait_for(*interface.stream);
    if (stream) handover.wait_for(*stream);
    ready_ = handover.record();
  }
  type_ = element_type(interface.typestr);
  set_layout(interface.shape,
             interface.strides.value_or(contiguous_strides(interface.shape, type_)));
  owner_ = hold(py::reinterpret_borrow<py::object>(value));
}

void DeviceTensor::set_layout(Shape shape, const Shape& strides) {
  shape_ = std::move(shape);
  bool dense = strides.size() == shape_.size();
  row_bytes_ = pipeline::element_bytes(type_);
  for (std::size_t axis = shape_.size(); dense && axis-- > 1;) {
    dense = shape_[axis] == 1 || strides[axis] == static_cast<std::int64_t>(row_bytes_);
    row_bytes_ *= static_cast<std::size_t>(shape_[axis]);
  }
  const bool has_rows = dense && !shape_.empty() && shape_[0] != 1;
  row_stride_ = has_rows ? static_cast<std::size_t>(strides[0]) : row_bytes_;
  const bool is_empty = row_bytes_ == 0 || (!shape_.empty() && shape_[0] == 0);
  const bool has_gaps = row_stride_ != row_bytes_;
  const bool fits = row_stride_ >= row_bytes_ && (!has_gaps || row_stride_ <= kMostStride);
  if (!dense || is_empty || !fits) row_stride_ = 0;
}

std::shared_ptr<const DeviceTensor> DeviceTensor::as_samples(const TensorSpec& spec,
                                                             bool batched) const {
  const bool is_bytes = type_ == ElementType::kInt8 || type_ == ElementType::kUint8;
  if (!is_bytes || shape_.size() != 1 || row_stride_ != 1 || !spec.is_static()) return nullptr;
  const auto sample = static_cast<std::int64_t>(pipeline::byte_count(spec.type, spec.shape));
  if (pipeline::element_bytes(spec.type) == 1 || sample == 0 || shape_[0] % sample != 0) {
    return nullptr;
  }
  const std::int64_t samples = shape_[0] / sample;
  if (samples > 1 && !batched) return nullptr;
  auto tensor = std::make_shared<DeviceTensor>(*this);
  tensor->type_ = spec.type;
  Shape shape = spec.shape;
  if (samples > 1) shape.insert(shape.begin(), samples);
  tensor->set_layout(shape, contiguous_strides(shape, spec.type));
  return tensor;
}

pipeline::DeviceInput DeviceTensor::input() const {
  return input(0, shape_.empty() ? 1 : static_cast<std::size_t>(shape_[0]));
}

pipeline::DeviceInput DeviceTensor::input(std::size_t first, std::size_t count) const {
  pipeline::DeviceInput input;
  input.data = data_ + first * row_stride_;
  input.block_bytes = row_bytes_;
  if (row_stride_ == row_bytes_) {
    input.block_bytes *= count;
  } else {
    input.blocks = count;
  }
  input.stride = row_stride_;
  input.device = device_;
  input.ready = ready_.get();
  return input;
}

namespace {

constexpr const char* kDescription =
    R"(A tensor on a GPU: of another library, or an output that stays there.

Sessions take tensors on a GPU as they are: whatever speaks DLPack or ``__cuda_array_interface__``
(PyTorch, CuPy, JAX, Numba, cuda.core). They are read after the work that their library names:
PyTorch and CuPy name the current stream of the calling thread. Wrap those whose library names none
(the buffers of cuda.core), or that are written on another stream::

    session.infer(trtinfer.DeviceTensor(buffer, stream=stream))

Plain bytes (a ``cuda.core.Buffer``, say) are samples if their number is that of a sample, or, for
models with a batch axis, a multiple of it.

With ``TensorRtOptions(outputs_on_gpu=True)`` outputs are such tensors, too: complete, and given on by
the same two protocols (``torch.from_dlpack(y)``, ``cupy.asarray(y)``, another session). Their memory
is used again once nobody holds them, after the work that is then under way on the default stream and
on streams that wait for it: hold them until work on other streams has read them.

Args:
    value: A tensor on a GPU. It is kept alive.
    stream: Where work that writes it has been enqueued before this call: an object with
        ``__cuda_stream__``, or a handle as an integer; of the tensor's GPU.

Attributes:
    shape: Its dimensions.
    device: The number of its GPU.
    element_type: As in ONNX; 0 for a type that no model has.
    is_dense: Whether a session can read it: no gaps, except between the rows of the first axis.

Raises:
    InputError: ``value`` lies on no GPU, or cannot be read there, or ``stream`` is none.
)";

}  // namespace

void register_device_tensor(py::module_& m) {
  py::class_<DeviceTensor, std::shared_ptr<DeviceTensor>>(m, "DeviceTensor", kDescription)
      .def(py::init([](py::handle value, py::handle stream) {
             auto tensor = DeviceTensor::read(value, stream_handle(stream));
             if (tensor != nullptr) return tensor;
             refuse(value, "it is not on a GPU; sessions take what is in host memory as it is");
           }),
           py::arg("value"), py::arg("stream") = py::none())
      .def(
          "as_samples",
          [](const DeviceTensor& self, int type, Shape shape, bool batched) {
            const TensorSpec spec{"", static_cast<ElementType>(type), std::move(shape)};
            return std::const_pointer_cast<DeviceTensor>(self.as_samples(spec, batched));
          },
          py::arg("element_type"), py::arg("shape"), py::arg("batched"))
      .def_static("is_on_gpu", &DeviceTensor::is_on_gpu, py::arg("value"))
      .def_property_readonly("element_type",
                             [](const DeviceTensor& self) { return static_cast<int>(self.type()); })
      .def_property_readonly(
          "shape", [](const DeviceTensor& self) { return py::tuple(py::cast(self.shape())); })
      .def("numpy", &DeviceTensor::to_host, "Return a copy in host memory.")
      .def(
          "__array__",
          [](const DeviceTensor& self, const py::object& dtype, const py::object& copy) {
            if (!copy.is_none() && !copy.cast<bool>()) throw py::value_error("it has to be copied");
            py::object array = self.to_host();
            return dtype.is_none() ? array : array.attr("astype")(dtype);
          },
          py::arg("dtype") = py::none(), py::arg("copy") = py::none())
      .def(
          "__dlpack__",
          [](const DeviceTensor& self, const py::object& stream, const py::object& max_version,
             const py::object& dl_device, const py::object& copy) {
            const py::tuple here = py::make_tuple(int{dlpack::kCuda}, self.device());
            if (!dl_device.is_none() && !here.equal(py::tuple(dl_device))) {
              throw py::buffer_error("it is not given to another device");
            }
            if (!copy.is_none() && copy.cast<bool>()) throw py::buffer_error("it is not copied");
            return self.to_dlpack(stream, max_version);
          },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__",
           [](const DeviceTensor& self) {
             return py::make_tuple(int{dlpack::kCuda}, self.device());
           })
      .def_property_readonly(kInterface, &DeviceTensor::to_interface)
      .def_property_readonly("device", &DeviceTensor::device)
      .def_property_readonly("is_dense", &DeviceTensor::is_dense);
}

}  // namespace trtinfer::bindings
