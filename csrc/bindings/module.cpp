// The extension module trtinfer._core.
#include <stdexcept>

#include "bindings/register.hpp"

namespace {

// NumPy and ONNX Runtime live in one interpreter of a process only, and so does what is held here.
constexpr const char* kRefusal =
    "trtinfer runs in the main interpreter only, as NumPy and ONNX Runtime do: import it there, or "
    "start a process";

bool in_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

// Memory that is written before it is read, which Python's own bytearray(size) writes first.
pybind11::object new_bytearray(pybind11::ssize_t size) {
  PyObject* bytes = PyByteArray_FromStringAndSize(nullptr, size);
  if (bytes == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(bytes);
}

}  // namespace

PYBIND11_MODULE(core, m, pybind11::mod_gil_not_used(),
                pybind11::multiple_interpreters::not_supported()) {
  if (!in_main_interpreter()) throw std::runtime_error(kRefusal);  // becomes an ImportError
  m.doc() = "Native core of trtinfer.";
  m.attr("__version__") = TRTINFER_VERSION;
  m.def("new_bytearray", &new_bytearray, pybind11::arg("size"));
  trtinfer::bindings::register_errors(m);
  trtinfer::bindings::register_cuda(m);
  trtinfer::bindings::register_preprocess(m);
  trtinfer::bindings::register_onnxruntime(m);
  trtinfer::bindings::register_tensorrt(m);
  trtinfer::bindings::register_loop_future(m);
  trtinfer::bindings::register_stream(m);
  trtinfer::bindings::register_device_tensor(m);
  trtinfer::bindings::register_ipc_memory(m);
  trtinfer::bindings::register_notifier(m);
  trtinfer::bindings::register_trace_log(m);
  trtinfer::bindings::register_executors(m);
  trtinfer::bindings::register_engine_replay(m);
  trtinfer::bindings::register_claim(m);
  trtinfer::bindings::register_open_loop(m);
  trtinfer::bindings::register_latency_policy(m);
  trtinfer::bindings::register_pipeline(m);
  trtinfer::bindings::register_loop_call(m);
  trtinfer::bindings::register_loop_caller(m);
}

// Python 3.13 calls this in the main interpreter first, others where the import is; then pybind11
// must not look for its state, which in another interpreter of Python 3.11 never ends.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (in_main_interpreter()) return PyInit_core();
  PyErr_SetString(PyExc_ImportError, kRefusal);
  return nullptr;
}
