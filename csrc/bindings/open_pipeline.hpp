// How pipelines over the backends are opened.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <tuple>
#include <vector>

#include "bindings/pipeline.hpp"
#include "onnxruntime/model.hpp"
#include "preprocess/host.hpp"

namespace trtinfer::bindings {

/// (name, element type as in ONNX, dtype, shape): what Python says of a tensor.
using TensorTuple = std::tuple<pybind11::str, int, pybind11::dtype, pipeline::Shape>;

/// A pipeline over ONNX Runtime. `requests` are the tensors that requests bring (an image of any
/// size when there is a preprocessor), `model_inputs` what the model reads.
PipelineHandle open_onnxruntime(const std::shared_ptr<onnxruntime::Model>& model,
                                const std::shared_ptr<preprocess::HostPreprocessor>& preprocessor,
                                const std::vector<TensorTuple>& requests,
                                const std::vector<TensorTuple>& model_inputs,
                                const std::vector<TensorTuple>& outputs, std::uint32_t fixed_batch,
                                bool batched, const pybind11::kwargs& options);

/// A pipeline that calls a Python function with the values of one request at a time.
PipelineHandle open_objects(pybind11::object function, const pybind11::kwargs& options);

}  // namespace trtinfer::bindings
