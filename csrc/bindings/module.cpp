// The extension module trtinfer._core.
#include "bindings/register.hpp"

namespace {

// NumPy and ONNX Runtime live in one interpreter of a process only, and so does what is held here.
bool is_main_interpreter() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return true;
  PyErr_SetString(
      PyExc_ImportError,
      "trtinfer runs in the main interpreter only, as NumPy and ONNX Runtime do: import "
      "it there, or start a process");
  return false;
}

}  // namespace

PYBIND11_MODULE(core, m, pybind11::mod_gil_not_used(),
                pybind11::multiple_interpreters::not_supported()) {
  if (!is_main_interpreter()) throw pybind11::error_already_set();
  m.doc() = "Native core of trtinfer.";
  m.attr("__version__") = TRTINFER_VERSION;
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
}

// Before pybind11 looks for its state, which in another interpreter of Python 3.11 waits for ever.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  return is_main_interpreter() ? PyInit_core() : nullptr;
}
