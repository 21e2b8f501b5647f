#include "bindings/object_executor.hpp"

#include "bindings/errors.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

ObjectExecutor::ObjectExecutor(py::object function) : function_(hold(std::move(function))) {}

pipeline::TransferTimes ObjectExecutor::run(const pipeline::Batch& batch) {
  pipeline::Request& request = *batch.units.front().request;
  const py::gil_scoped_acquire locked;
  const auto function = py::reinterpret_borrow<py::object>(static_cast<PyObject*>(function_.get()));
  const auto inputs =
      py::reinterpret_borrow<py::object>(static_cast<PyObject*>(request.payload.get()));
  try {
    request.payload = hold(function(inputs));
  } catch (py::error_already_set& error) {
    // The request fails alone; who pressed Ctrl-C is to see it nevertheless.
    if (error.matches(PyExc_KeyboardInterrupt)) PyErr_SetInterrupt();
    throw pipeline::ExecutionError(py::str(error.value()).cast<std::string>());
  }
  return {};
}

}  // namespace trtinfer::bindings
