// The extension module trtinfer._core.
#include "bindings/register.hpp"

PYBIND11_MODULE(_core, m) {
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
