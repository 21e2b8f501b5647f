#include "bindings/open_pipeline.hpp"

#include "bindings/object_executor.hpp"
#include "bindings/unlocked.hpp"
#include "pipeline/onnxruntime_executor.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Batching;
using pipeline::ElementType;
using pipeline::Executor;
using pipeline::Pipeline;
using ring::Nanoseconds;

namespace {

std::shared_ptr<Pipeline> make_pipeline(std::shared_ptr<Executor> executor,
                                        std::vector<pipeline::TensorSpec> inputs,
                                        const ring::RingOptions& options) {
  // A lane may want the GIL to finish its batch, so it is never held while the pipeline ends.
  const auto destroy = [](Pipeline* pipeline) {
    if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) {
      const Unlocked unlocked;
      delete pipeline;
    } else {
      delete pipeline;
    }
  };
  return {new Pipeline(std::move(executor), std::move(inputs), options), destroy};
}

std::vector<Layout::Tensor> make_tensors(const std::vector<TensorTuple>& tuples) {
  std::vector<Layout::Tensor> tensors;
  for (const auto& [name, type, dtype, shape] : tuples) {
    tensors.push_back({{name.cast<std::string>(), static_cast<ElementType>(type), shape},
                       py::reinterpret_steal<py::str>(PyUnicode_FromObject(name.ptr())),
                       dtype});
  }
  return tensors;
}

std::vector<pipeline::TensorSpec> specs_of(const std::vector<Layout::Tensor>& tensors) {
  std::vector<pipeline::TensorSpec> specs;
  for (const Layout::Tensor& tensor : tensors) specs.push_back(tensor.spec);
  return specs;
}

ring::RingOptions ring_options(const py::kwargs& options) {
  ring::RingOptions result;
  result.capacity = options["capacity"].cast<std::uint32_t>();
  result.arena_bytes = options["arena_bytes"].cast<std::uint64_t>();
  result.lanes = options["lanes"].cast<std::uint32_t>();
  result.max_batch_size = options["max_batch_size"].cast<std::uint32_t>();
  result.merge_limit = options["merge_limit"].cast<std::uint32_t>();
  result.max_delay = static_cast<Nanoseconds>(options["max_delay"].cast<double>() * 1e9);
  return result;
}

/// A pipeline over ONNX Runtime. `requests` are the tensors that requests bring (an image of any
/// size when there is a preprocessor), `model_inputs` what the model reads.
}  // namespace

PipelineHandle open_onnxruntime(const std::shared_ptr<onnxruntime::Model>& model,
                                const std::shared_ptr<preprocess::HostPreprocessor>& preprocessor,
                                const std::vector<TensorTuple>& requests,
                                const std::vector<TensorTuple>& model_inputs,
                                const std::vector<TensorTuple>& outputs, std::uint32_t fixed_batch,
                                bool batched, const py::kwargs& options) {
  const ring::RingOptions sizes = ring_options(options);
  pipeline::OnnxRuntimeExecutorOptions executor_options;
  executor_options.batching = !batched          ? Batching::kNone
                              : fixed_batch > 0 ? Batching::kFixed
                                                : Batching::kDynamic;
  executor_options.fixed_batch = fixed_batch;
  executor_options.lanes = sizes.lanes;
  executor_options.max_batch_size = sizes.max_batch_size;
  std::vector<Layout::Tensor> input_tensors = make_tensors(requests);
  std::vector<Layout::Tensor> output_tensors = make_tensors(outputs);
  auto executor = std::make_shared<pipeline::OnnxRuntimeExecutor>(
      model, preprocessor, specs_of(make_tensors(model_inputs)), specs_of(output_tensors),
      executor_options);
  auto native = make_pipeline(std::move(executor), specs_of(input_tensors), sizes);
  const bool rows = batched && preprocessor == nullptr;
  auto layout =
      std::make_shared<const Layout>(std::move(input_tensors), std::move(output_tensors), rows);
  return {std::move(native), std::move(layout)};
}

PipelineHandle open_objects(py::object function, const py::kwargs& options) {
  auto executor = std::make_shared<ObjectExecutor>(std::move(function));
  return {make_pipeline(std::move(executor), {}, ring_options(options)),
          std::make_shared<const Layout>(std::vector<Layout::Tensor>{},
                                         std::vector<Layout::Tensor>{}, false)};
}

}  // namespace trtinfer::bindings
