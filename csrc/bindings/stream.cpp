#include "bindings/stream.hpp"

#include <exception>
#include <string>

#include "bindings/errors.hpp"
#include "bindings/register.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

std::optional<void*> stream_handle(py::handle stream) {
  if (stream.is_none()) return std::nullopt;
  try {
    auto number = py::reinterpret_borrow<py::object>(stream);
    if (py::hasattr(stream, "__cuda_stream__")) {
      const py::tuple version_and_handle = stream.attr("__cuda_stream__")();
      number = version_and_handle[1];
    }
    return reinterpret_cast<void*>(number.cast<std::uintptr_t>());  // NOLINT: Python has numbers
  } catch (const std::exception&) {
    raise_error("InputError", "stream=" + py::repr(stream).cast<std::string>() +
                                  " is no CUDA stream: pass an object with __cuda_stream__, or a "
                                  "handle as an integer");
  }
}

void register_stream(py::module_& m) {
  py::class_<StreamHandle>(m, "LaneStream")
      .def_property_readonly("handle", &StreamHandle::number)
      .def_property_readonly("device", [](const StreamHandle& self) { return self.stream.device; })
      .def("__cuda_stream__",
           [](const StreamHandle& self) { return py::make_tuple(0, self.number()); });
}

}  // namespace trtinfer::bindings
