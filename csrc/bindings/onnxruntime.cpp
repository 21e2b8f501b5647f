// Python face of csrc/onnxruntime.
#include "onnxruntime/model.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"

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

// One direct run, as ONNX Runtime's own: arrays in the model's order, C-contiguous, exact dtypes.
std::vector<py::array> run(const Model& model, const std::vector<py::array>& arrays,
                           const std::vector<py::dtype>& output_dtypes) {
  std::vector<Value> inputs, outputs(model.outputs().size());
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    inputs.push_back({const_cast<void*>(arrays[i].data()),
                      static_cast<std::size_t>(arrays[i].nbytes()),
                      model.inputs().at(i).element_type,
                      {arrays[i].shape(), arrays[i].shape() + arrays[i].ndim()},
                      nullptr});
  }
  try {
    const Unlocked unlocked;
    model.run(inputs, outputs);
  } catch (const std::runtime_error& error) {
    raise_error("BackendError", error.what());
  }
  std::vector<py::array> results;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const py::capsule owner(new std::shared_ptr<void>(outputs[i].owner), [](void* held) {
      delete static_cast<std::shared_ptr<void>*>(held);
    });
    results.emplace_back(output_dtypes.at(i), outputs[i].shape, outputs[i].data, owner);
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
