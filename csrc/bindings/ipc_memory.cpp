// Python face of csrc/cuda/ipc_memory.
#include "cuda/ipc_memory.hpp"

#include <pybind11/stl.h>

#include <string>
#include <string_view>

#include "bindings/device_tensor.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {
namespace {

using cuda::IpcMemory;

void check_within(const IpcMemory& memory, std::size_t offset, std::size_t bytes) {
  if (offset > memory.size() || bytes > memory.size() - offset) {
    throw UnreadableTensor(std::to_string(bytes) + " bytes from " + std::to_string(offset) +
                           " are not within the " + std::to_string(memory.size()) +
                           " of the GPU's memory");
  }
}

std::shared_ptr<IpcMemory> open(std::string_view handle, int device) {
  if (handle.size() != IpcMemory::kHandleBytes) {
    throw UnreadableTensor("a handle of a GPU's memory has 64 bytes, " +
                           std::to_string(handle.size()) + " were received");
  }
  const Unlocked unlocked;
  const auto* bytes = reinterpret_cast<const std::byte*>(handle.data());
  return std::make_shared<IpcMemory>(
      std::span<const std::byte, IpcMemory::kHandleBytes>(bytes, IpcMemory::kHandleBytes), device);
}

py::bytes read(const IpcMemory& memory, std::size_t offset, std::size_t bytes) {
  check_within(memory, offset, bytes);
  py::bytes read(nullptr, bytes);
  auto* to = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(read.ptr()));
  const Unlocked unlocked;
  memory.read(offset, {to, bytes});
  return read;
}

void write(const IpcMemory& memory, std::size_t offset, const py::buffer& buffer) {
  const py::buffer_info info = buffer.request();
  const std::span from(static_cast<const std::byte*>(info.ptr),
                       static_cast<std::size_t>(info.size * info.itemsize));
  check_within(memory, offset, from.size());
  const Unlocked unlocked;
  memory.write(offset, from);
}

std::shared_ptr<DeviceTensor> tensor(const std::shared_ptr<IpcMemory>& memory, std::size_t offset,
                                     int type, const pipeline::Shape& shape) {
  const auto element = static_cast<pipeline::ElementType>(type);
  check_within(*memory, offset, pipeline::byte_count(element, shape));
  return DeviceTensor::within(memory, {memory->data() + offset, memory->device()}, element, shape);
}

}  // namespace

void register_ipc_memory(py::module_& m) {
  py::class_<IpcMemory, std::shared_ptr<IpcMemory>>(m, "IpcMemory")
      .def(py::init(&open), py::arg("handle"), py::arg("device"))
      .def_property_readonly("byte_size", &IpcMemory::size)
      .def("read", &read, py::arg("offset"), py::arg("byte_size"))
      .def("write", &write, py::arg("offset"), py::arg("buffer"))
      .def("tensor", &tensor, py::arg("offset"), py::arg("element_type"), py::arg("shape"));
}

}  // namespace trtinfer::bindings
