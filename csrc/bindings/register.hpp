// One function per bindings/<noun>.cpp; module.cpp calls them in this order.
#pragma once

#include <pybind11/pybind11.h>

namespace trtinfer::bindings {

void register_errors(pybind11::module_& m);
void register_cuda(pybind11::module_& m);
void register_preprocess(pybind11::module_& m);
void register_onnxruntime(pybind11::module_& m);
void register_tensorrt(pybind11::module_& m);
void register_loop_future(pybind11::module_& m);
void register_stream(pybind11::module_& m);
void register_device_tensor(pybind11::module_& m);
void register_ipc_memory(pybind11::module_& m);
void register_notifier(pybind11::module_& m);
void register_trace_log(pybind11::module_& m);
void register_executors(pybind11::module_& m);
void register_engine_replay(pybind11::module_& m);
void register_claim(pybind11::module_& m);
void register_open_loop(pybind11::module_& m);
void register_latency_policy(pybind11::module_& m);
void register_pipeline(pybind11::module_& m);
void register_loop_call(pybind11::module_& m);
void register_loop_caller(pybind11::module_& m);

}  // namespace trtinfer::bindings
