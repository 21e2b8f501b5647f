#include "pipeline/engine_replay.hpp"

#include <cstdio>
#include <cstring>
#include <string>

#include "pipeline/executor.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::pipeline {
namespace {

std::size_t tensor_bytes(const tensorrt::IoTensor& tensor) {
  for (const std::int64_t size : tensor.shape) {
    if (size < 0) throw ExecutionError("the shape of tensor \"" + tensor.name + "\" varies");
  }
  if (tensor.is_on_host) throw ExecutionError("tensor \"" + tensor.name + "\" is a shape");
  const auto type = static_cast<ElementType>(tensorrt::onnx_element_type(tensor.dtype));
  return byte_count(type, tensor.shape);
}

/// Copies the next input to where it is sent from.
void fill(std::byte* to, std::size_t bytes, const std::vector<EngineReplay::Bytes>& inputs,
          std::size_t next) {
  if (next >= inputs.size() || inputs[next].size() != bytes) {
    throw ExecutionError("input " + std::to_string(next) + " of the engine has " +
                         std::to_string(bytes) + " bytes, which were not given");
  }
  std::memcpy(to, inputs[next].data(), bytes);
}

}  // namespace

EngineReplay::EngineReplay(const std::shared_ptr<const tensorrt::Engine>& engine,
                           const std::vector<Bytes>& inputs, const EngineReplayOptions& options)
    : options_(options) {
  const cuda::CurrentDevice device(options_.device);
  lanes_ = std::vector<Lane>(options_.lanes);
  for (Lane& lane : lanes_) open_lane(lane, engine, inputs);
}

EngineReplay::~EngineReplay() {
  try {
    const cuda::CurrentDevice device(options_.device);
    for (const Lane& lane : lanes_) lane.stream.synchronize();
    lanes_.clear();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "trtinfer: a GPU that failed was closed: %s\n", error.what());
  }
}

void EngineReplay::open_lane(Lane& lane, const std::shared_ptr<const tensorrt::Engine>& engine,
                             const std::vector<Bytes>& inputs) const {
  tensorrt::ContextOptions context;
  context.cache = options_.cache;
  lane.context = std::make_unique<tensorrt::ExecutionContext>(engine, context);
  std::size_t next = 0;
  for (const tensorrt::IoTensor& tensor : engine->tensors()) {
    const std::size_t bytes = tensor_bytes(tensor);
    lane.tensors.push_back(
        {tensor.is_input, bytes, cuda::allocate_device(bytes), cuda::allocate_pinned(bytes)});
    lane.context->set_address(tensor.name.c_str(), lane.tensors.back().device.get());
    if (tensor.is_input) fill(lane.tensors.back().host.get(), bytes, inputs, next++);
  }
  copy(lane, true);
  lane.context->enqueue(lane.stream.get());  // may compile, which a capture does not allow
  lane.stream.synchronize();
  const auto enqueue = [&] {
    if (options_.transfers) copy(lane, true);
    lane.context->enqueue(lane.stream.get());
    if (options_.transfers) copy(lane, false);
  };
  lane.graph.capture(lane.stream, enqueue, options_.order);
}

void EngineReplay::copy(const Lane& lane, bool inputs) {
  for (const Tensor& tensor : lane.tensors) {
    if (tensor.is_input != inputs) continue;
    std::byte* const host = tensor.host.get();
    std::byte* const device = tensor.device.get();
    cuda::copy_async(inputs ? device : host, inputs ? host : device, tensor.bytes, lane.stream);
  }
}

std::vector<ring::Nanoseconds> EngineReplay::time_alone(std::uint32_t replays) const {
  const cuda::CurrentDevice device(options_.device);
  const Lane& lane = lanes_.front();
  std::vector<ring::Nanoseconds> times(replays);
  for (ring::Nanoseconds& time : times) {
    const ring::Nanoseconds begin = ring::now();
    lane.graph.launch(lane.stream);
    lane.finished.record(lane.stream);
    while (!lane.finished.done()) {
    }
    time = ring::now() - begin;
  }
  return times;
}

ring::Nanoseconds EngineReplay::time_saturated(std::uint32_t replays) const {
  const cuda::CurrentDevice device(options_.device);
  const ring::Nanoseconds begin = ring::now();
  for (std::uint32_t i = 0; i < replays; ++i) {
    const Lane& lane = lanes_[i % lanes_.size()];
    lane.graph.launch(lane.stream);
  }
  for (const Lane& lane : lanes_) lane.stream.synchronize();
  return ring::now() - begin;
}

std::vector<EngineReplay::Bytes> EngineReplay::outputs() const {
  const cuda::CurrentDevice device(options_.device);
  const Lane& lane = lanes_.front();
  copy(lane, false);
  lane.stream.synchronize();
  std::vector<Bytes> found;
  for (const Tensor& tensor : lane.tensors) {
    if (!tensor.is_input) found.emplace_back(tensor.host.get(), tensor.bytes);
  }
  return found;
}

}  // namespace trtinfer::pipeline
