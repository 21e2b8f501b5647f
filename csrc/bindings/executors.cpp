// Python face of the executors, which pipelines are made of.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "bindings/errors.hpp"
#include "bindings/object_executor.hpp"
#include "bindings/register.hpp"
#include "bindings/tensors.hpp"
#include "bindings/unlocked.hpp"
#include "cuda/error.hpp"
#include "pipeline/devices_executor.hpp"
#include "pipeline/fallback_executor.hpp"
#include "pipeline/onnxruntime_executor.hpp"
#include "pipeline/tensorrt_executor.hpp"
#include "tensorrt/error.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::DevicesExecutor;
using pipeline::Executor;
using pipeline::FallbackExecutor;
using pipeline::OnnxRuntimeExecutor;
using pipeline::TensorRtExecutor;

namespace {

std::shared_ptr<OnnxRuntimeExecutor> make_onnxruntime(
    const std::shared_ptr<onnxruntime::Model>& model,
    const std::shared_ptr<preprocess::HostPreprocessor>& preprocessor,
    const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
    const std::pair<bool, std::uint32_t>& batching, std::uint32_t lanes) {
  pipeline::OnnxRuntimeExecutorOptions options;
  options.fixed_batch = batching.second;
  options.lanes = lanes;
  if (!batching.first) {
    options.batching = pipeline::Batching::kNone;
  } else if (batching.second > 0) {
    options.batching = pipeline::Batching::kFixed;
  }
  return std::make_shared<OnnxRuntimeExecutor>(model, preprocessor, make_specs(inputs),
                                               make_specs(outputs), options);
}

std::shared_ptr<TensorRtExecutor> make_tensorrt(
    const std::vector<std::pair<std::uint32_t, std::shared_ptr<tensorrt::Engine>>>& engines,
    const preprocess::Recipe* recipe, const std::vector<TensorTuple>& inputs,
    const std::vector<TensorTuple>& outputs, const py::kwargs& kwargs) {
  pipeline::TensorRtExecutorOptions options;
  options.device = kwargs["device"].cast<int>();
  options.lanes = kwargs["lanes"].cast<std::uint32_t>();
  options.spin = static_cast<ring::Nanoseconds>(kwargs["spin"].cast<double>() * 1e9);
  options.keeps_outputs = kwargs["keeps_outputs"].cast<bool>();
  options.cache = kwargs["cache"].cast<std::shared_ptr<tensorrt::RuntimeCache>>();
  std::vector<pipeline::BucketEngine> buckets;
  for (const auto& [size, engine] : engines) buckets.push_back({size, engine});
  std::vector<pipeline::TensorSpec> input_specs = make_specs(inputs);
  std::vector<pipeline::TensorSpec> output_specs = make_specs(outputs);
  try {
    const Unlocked unlocked;
    return std::make_shared<TensorRtExecutor>(buckets, recipe, std::move(input_specs),
                                              std::move(output_specs), options);
  } catch (const cuda::Error& error) {
    raise_error("BackendError", error.what());
  } catch (const tensorrt::Error& error) {
    raise_error("BackendError", error.what());
  } catch (const pipeline::ExecutionError& error) {
    raise_error("ModelError", error.what());
  }
}

/// Calls a held Python function from a thread that may not hold the GIL; what it raises becomes an
/// ExecutionError.
template <typename Use>
auto call_held(const std::shared_ptr<void>& function, const Use& use) {
  const py::gil_scoped_acquire locked;
  try {
    return use(py::reinterpret_borrow<py::object>(static_cast<PyObject*>(function.get())));
  } catch (const py::error_already_set& error) {
    throw pipeline::ExecutionError(error.what());
  }
}

std::shared_ptr<FallbackExecutor> make_fallback(std::shared_ptr<Executor> first,
                                                py::object make_second, py::object report) {
  const std::shared_ptr<void> held_make = hold(std::move(make_second));
  const std::shared_ptr<void> held_report = hold(std::move(report));
  return std::make_shared<FallbackExecutor>(
      std::move(first),
      [held_make] {
        return call_held(held_make, [](const py::object& make) {
          return make().cast<std::shared_ptr<Executor>>();
        });
      },
      [held_report](const std::string& reason) {
        call_held(held_report, [&](const py::object& report) { report(reason); });
      });
}

std::shared_ptr<DevicesExecutor> make_devices(std::vector<std::shared_ptr<Executor>> devices,
                                              std::uint32_t lanes_each, py::object report) {
  const std::shared_ptr<void> held_report = hold(std::move(report));
  return std::make_shared<DevicesExecutor>(
      std::move(devices), lanes_each, [held_report](std::size_t device, const std::string& reason) {
        call_held(held_report, [&](const py::object& report) { report(device, reason); });
      });
}

}  // namespace

void register_executors(py::module_& m) {
  py::class_<Executor, std::shared_ptr<Executor>>(m, "Executor");
  py::class_<ObjectExecutor, Executor, std::shared_ptr<ObjectExecutor>>(m, "ObjectExecutor")
      .def(py::init<py::object>(), py::arg("function"));
  py::class_<OnnxRuntimeExecutor, Executor, std::shared_ptr<OnnxRuntimeExecutor>>(
      m, "OnnxRuntimeExecutor")
      .def(py::init(&make_onnxruntime), py::arg("model"), py::arg("preprocessor"),
           py::arg("inputs"), py::arg("outputs"), py::arg("batching"), py::arg("lanes"));
  py::class_<TensorRtExecutor, Executor, std::shared_ptr<TensorRtExecutor>>(m, "TensorRtExecutor")
      .def(py::init(&make_tensorrt), py::arg("engines"), py::arg("recipe"), py::arg("inputs"),
           py::arg("outputs"))
      .def_property_readonly("batches", &TensorRtExecutor::batches);
  py::class_<DevicesExecutor, Executor, std::shared_ptr<DevicesExecutor>>(m, "DevicesExecutor")
      .def(py::init(&make_devices), py::arg("devices"), py::arg("lanes_each"), py::arg("report"));
  py::class_<FallbackExecutor, Executor, std::shared_ptr<FallbackExecutor>>(m, "FallbackExecutor")
      .def(py::init(&make_fallback), py::arg("first"), py::arg("make_second"), py::arg("report"))
      .def_property_readonly("has_failed", &FallbackExecutor::has_failed);
}

}  // namespace trtinfer::bindings
