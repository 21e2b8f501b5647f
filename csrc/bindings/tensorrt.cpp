// Python face of csrc/tensorrt.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"
#include "cuda/error.hpp"
#include "cuda/stream.hpp"
#include "tensorrt/builder.hpp"
#include "tensorrt/driver.hpp"
#include "tensorrt/error.hpp"
#include "tensorrt/execution_context.hpp"
#include "tensorrt/library.hpp"
#include "tensorrt/runtime_cache.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using namespace tensorrt;

namespace {

std::span<const std::byte> bytes_of(const py::bytes& data) {
  const auto view = static_cast<std::string_view>(data);
  return std::as_bytes(std::span(view.data(), view.size()));
}

py::bytes to_bytes(const HostMemory& memory) {
  const auto bytes = memory.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

constexpr const char* kModelError = "ModelError";
constexpr const char* kBackendError = "BackendError";

/// Runs without the GIL; an Error of TensorRT becomes the Python error of that name.
template <typename Function>
auto call(const char* error_name, Function&& function) {
  try {
    const Unlocked unlocked;
    return function();
  } catch (const Error& error) {
    raise_error(error_name, error.what());
  } catch (const cuda::Error& error) {
    raise_error(kBackendError, error.what());
  }
}

ProgressCallback progress_callback(const py::object& function) {
  if (function.is_none()) return nullptr;
  return [function = function.ptr()](const Progress& progress) {  // the caller keeps it alive
    const py::gil_scoped_acquire locked;
    const py::object keep_on =
        py::handle(function)(progress.phase, progress.parent, progress.step, progress.steps);
    return keep_on.is_none() || keep_on.cast<bool>();
  };
}

py::tuple build(const Builder& builder, std::map<std::string, ShapeRange> shapes, bool tf32,
                std::size_t workspace_bytes, int optimization_level, int max_aux_streams,
                std::vector<int> compute_capabilities, const py::bytes& timing_cache,
                const py::object& progress) {
  const BuildOptions options{.shapes = std::move(shapes),
                             .tf32 = tf32,
                             .workspace_bytes = workspace_bytes,
                             .optimization_level = optimization_level,
                             .max_aux_streams = max_aux_streams,
                             .compute_capabilities = std::move(compute_capabilities),
                             .timing_cache = bytes_of(timing_cache),
                             .progress = progress_callback(progress)};
  const BuildResult result = call(kModelError, [&] { return builder.build(options); });
  py::object cache = py::none();
  if (result.timing_cache) cache = to_bytes(*result.timing_cache);
  return py::make_tuple(to_bytes(result.plan), cache);
}

void* to_pointer(std::uintptr_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT: Python has addresses as numbers
}

void register_library(py::module_& m) {
  py::enum_<Family>(m, "TensorRtFamily")
      .value("TENSORRT_10", Family::kTensorRt10)
      .value("TENSORRT_11", Family::kTensorRt11)
      .value("RTX_1", Family::kRtx1);
  py::class_<Library, std::unique_ptr<Library, py::nodelete>>(m, "TensorRtLibrary")
      .def_static(
          "load",
          [](const std::string& library, const std::string& parser, std::optional<Family> family) {
            return call(kBackendError, [&] { return &Library::load({library, parser, family}); });
          },
          py::arg("library"), py::arg("parser") = "", py::arg("family") = py::none(),
          py::return_value_policy::reference)
      .def_property_readonly("path", &Library::path)
      .def_property_readonly("version", &Library::version_text)
      .def_property_readonly("is_rtx", &Library::is_rtx)
      .def_property_readonly("can_build", &Library::can_build)
      .def_property_readonly("build_reason", &Library::build_reason)
      .def_property_readonly(
          "only_strongly_typed",
          [](const Library& library) { return library.abi().only_strongly_typed(); })
      .def("drain_messages", [](const Library& library) {
        std::vector<std::pair<int, std::string>> messages;
        for (Message& message : library.logger().drain()) {
          messages.emplace_back(static_cast<int>(message.severity), std::move(message.text));
        }
        return messages;
      });
  m.def("tensorrt_driver_reason", [] { return driver().reason; });
}

void register_builder(py::module_& m) {
  py::class_<IoTensor>(m, "TensorRtTensor")
      .def_readonly("name", &IoTensor::name)
      .def_readonly("is_input", &IoTensor::is_input)
      .def_readonly("is_on_host", &IoTensor::is_on_host)
      .def_property_readonly("element_type",
                             [](const IoTensor& tensor) { return onnx_element_type(tensor.dtype); })
      .def_readonly("shape", &IoTensor::shape);
  py::class_<ShapeRange>(m, "TensorRtShapeRange")
      .def(py::init<Shape, Shape, Shape>(), py::arg("min"), py::arg("opt"), py::arg("max"))
      .def_readonly("min", &ShapeRange::min)
      .def_readonly("opt", &ShapeRange::opt)
      .def_readonly("max", &ShapeRange::max);
  py::enum_<Precision>(m, "TensorRtPrecision")
      .value("AS_MODEL", Precision::kAsModel)
      .value("FP16", Precision::kFp16)
      .value("BF16", Precision::kBf16)
      .value("INT8", Precision::kInt8);
  py::class_<Builder>(m, "TensorRtBuilder")
      .def(py::init([](const Library& library, Precision precision) {
             return call(kBackendError,
                         [&] { return std::make_unique<Builder>(library, precision); });
           }),
           py::arg("library"), py::arg("precision") = Precision::kAsModel)
      .def(
          "parse",
          [](Builder& builder, const py::bytes& model, const std::string& path) {
            const auto bytes = bytes_of(model);
            call(kModelError, [&] { builder.parse(bytes, path); });
          },
          py::arg("model"), py::arg("path") = "")
      .def(
          "parse_file",
          [](Builder& builder, const std::string& path) {
            call(kModelError, [&] { builder.parse_file(path); });
          },
          py::arg("path"))
      .def_property_readonly("tensors", &Builder::tensors)
      .def_property_readonly("layer_count", &Builder::layer_count)
      .def("build", &build, py::arg("shapes"), py::kw_only(), py::arg("tf32") = false,
           py::arg("workspace_bytes") = 0, py::arg("optimization_level") = -1,
           py::arg("max_aux_streams") = -1, py::arg("compute_capabilities") = std::vector<int>{},
           py::arg("timing_cache") = py::bytes(), py::arg("progress") = py::none());
}

void register_engine(py::module_& m) {
  py::class_<Engine, std::shared_ptr<Engine>>(m, "TensorRtEngine")
      .def(py::init([](const Library& library, const py::bytes& plan, int device) {
             const auto bytes = bytes_of(plan);
             return call(kModelError, [&] {
               const cuda::CurrentDevice current(device);
               return std::make_shared<Engine>(library, bytes);
             });
           }),
           py::arg("library"), py::arg("plan"), py::arg("device") = 0)
      .def_property_readonly("name", &Engine::name)
      .def_property_readonly("tensors", &Engine::tensors)
      .def_property_readonly("profile_count", &Engine::profile_count)
      .def_property_readonly("device_memory_size", &Engine::device_memory_size)
      .def(
          "profile_shapes",
          [](const Engine& engine, const std::string& input, std::int32_t profile) {
            return call(kModelError, [&] { return engine.profile_shapes(input, profile); });
          },
          py::arg("input"), py::arg("profile") = 0);
  py::class_<RuntimeCache, std::shared_ptr<RuntimeCache>>(m, "TensorRtRuntimeCache")
      .def(py::init([](const std::shared_ptr<Engine>& engine) {
             return call(kBackendError, [&] { return std::make_shared<RuntimeCache>(*engine); });
           }),
           py::arg("engine"))
      .def(
          "deserialize",
          [](RuntimeCache& cache, const py::bytes& data) {
            const auto bytes = bytes_of(data);
            return call(kBackendError, [&] { return cache.deserialize(bytes); });
          },
          py::arg("data"))
      .def("serialize", [](const RuntimeCache& cache) {
        return to_bytes(call(kBackendError, [&] { return cache.serialize(); }));
      });
}

void register_context(py::module_& m) {
  using Context = ExecutionContext;
  py::class_<Context>(m, "TensorRtExecutionContext")
      .def(py::init([](const std::shared_ptr<Engine>& engine,
                       const std::shared_ptr<RuntimeCache>& cache) {
             return call(kBackendError, [&] {
               return std::make_unique<Context>(engine, ContextOptions{.cache = cache});
             });
           }),
           py::arg("engine"), py::arg("cache") = py::none())
      .def(
          "set_input_shape",
          [](Context& context, const std::string& name, const Shape& shape) {
            call(kBackendError, [&] { context.set_input_shape(name.c_str(), shape); });
          },
          py::arg("name"), py::arg("shape"))
      .def(
          "tensor_shape",
          [](const Context& context, const std::string& name) {
            return call(kBackendError, [&] { return context.tensor_shape(name.c_str()); });
          },
          py::arg("name"))
      .def(
          "set_address",
          [](Context& context, const std::string& name, std::uintptr_t address) {
            call(kBackendError, [&] { context.set_address(name.c_str(), to_pointer(address)); });
          },
          py::arg("name"), py::arg("address"))
      .def(
          "set_profile",
          [](Context& context, std::int32_t profile, std::uintptr_t stream) {
            call(kBackendError, [&] { context.set_profile(profile, to_pointer(stream)); });
          },
          py::arg("profile"), py::arg("stream"))
      .def(
          "set_input_consumed_event",
          [](Context& context, std::uintptr_t event) {
            call(kBackendError, [&] { context.set_input_consumed_event(to_pointer(event)); });
          },
          py::arg("event"))
      .def(
          "enqueue",
          [](Context& context, std::uintptr_t stream) {
            call(kBackendError, [&] { context.enqueue(to_pointer(stream)); });
          },
          py::arg("stream"));
}

}  // namespace

void register_tensorrt(py::module_& m) {
  register_library(m);
  register_builder(m);
  register_engine(m);
  register_context(m);
}

}  // namespace trtinfer::bindings
