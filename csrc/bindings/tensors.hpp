// What Python says of a session's tensors.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <tuple>
#include <vector>

#include "bindings/layout.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::bindings {

/// (name, element type as in ONNX, dtype, shape).
using TensorTuple = std::tuple<pybind11::str, int, pybind11::dtype, pipeline::Shape>;

std::vector<Layout::Tensor> make_tensors(const std::vector<TensorTuple>& tuples);
std::vector<pipeline::TensorSpec> make_specs(const std::vector<TensorTuple>& tuples);

}  // namespace trtinfer::bindings
