// Python face of csrc/onnxruntime.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"
#include "onnxruntime/model.hpp"
#include "onnxruntime/packed.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using onnxruntime::Api;
using onnxruntime::Model;
using onnxruntime::ModelOptions;
using onnxruntime::Value;
using onnxruntime::ValueInfo;

namespace {

std::shared_ptr<Model> open_model(const std::string& library, const std::string& model,
                                  bool from_bytes, const ModelOptions& options) {
  try {
    const Unlocked unlocked;
    return std::make_shared<Model>(Api::load(library), model, from_bytes, options);
  } catch (const std::runtime_error& error) {
    raise_error("ModelError", error.what());
  }
}

Value wrap(const py::array& array, std::int32_t element_type) {
  Value value{const_cast<void*>(array.data()),
              static_cast<std::size_t>(array.nbytes()),
              element_type,
              {array.shape(), array.shape() + array.ndim()},
              nullptr};
  if (const int bits = onnxruntime::packed_bits(element_type)) {
    auto packed = std::make_shared<std::vector<std::byte>>(onnxruntime::pack(
        static_cast<const std::byte*>(array.data()), static_cast<std::size_t>(array.size()), bits));
    value.data = packed->data();
    value.bytes = packed->size();
    value.owner = std::move(packed);
  }
  return value;
}

py::array unwrap(const Value& value, std::int32_t element_type, const py::dtype& dtype) {
  if (const int bits = onnxruntime::packed_bits(element_type)) {
    py::array array(dtype, value.shape);
    onnxruntime::unpack(static_cast<const std::byte*>(value.data),
                        static_cast<std::size_t>(array.size()), bits,
                        static_cast<std::byte*>(array.mutable_data()));
    return array;
  }
  const py::capsule owner(new std::shared_ptr<void>(value.owner),
                          [](void* held) { delete static_cast<std::shared_ptr<void>*>(held); });
  return {dtype, value.shape, value.data, owner};
}

// One direct run, as ONNX Runtime's own: arrays in the model's order, C-contiguous, exact dtypes.
std::vector<py::array> run(const Model& model, const std::vector<py::array>& arrays,
                           const std::vector<py::dtype>& output_dtypes) {
  std::vector<Value> inputs, outputs(model.outputs().size());
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    inputs.push_back(wrap(arrays[i], model.inputs().at(i).element_type));
  }
  try {
    const Unlocked unlocked;
    model.run(inputs, outputs);
  } catch (const std::runtime_error& error) {
    raise_error("BackendError", error.what());
  }
  std::vector<py::array> results;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    results.push_back(unwrap(outputs[i], model.outputs()[i].element_type, output_dtypes.at(i)));
  }
  return results;
}

}  // namespace

void register_onnxruntime(py::module_& m) {
  py::class_<ValueInfo>(m, "OnnxRuntimeValueInfo")
      .def_readonly("name", &ValueInfo::name)
      .def_readonly("is_tensor", &ValueInfo::is_tensor)
      .def_readonly("element_type", &ValueInfo::element_type)
      .def_readonly("shape", &ValueInfo::shape)
      .def_readonly("symbols", &ValueInfo::symbols);

  py::class_<Model, std::shared_ptr<Model>>(m, "OnnxRuntimeModel")
      .def(py::init([](const std::string& library, const py::object& model, int intra_op_threads,
                       int inter_op_threads, const std::map<std::string, std::string>& config) {
             const bool from_bytes = py::isinstance<py::bytes>(model);
             return open_model(library, model.cast<std::string>(), from_bytes,
                               {intra_op_threads, inter_op_threads, 99, config});
           }),
           py::arg("library"), py::arg("model"), py::arg("intra_op_threads"),
           py::arg("inter_op_threads"), py::arg("config"))
      .def("run", &run, py::arg("inputs"), py::arg("output_dtypes"))
      .def_property_readonly("inputs", &Model::inputs)
      .def_property_readonly("outputs", &Model::outputs)
      .def_property_readonly("metadata", &Model::metadata);
}

}  // namespace trtinfer::bindings
