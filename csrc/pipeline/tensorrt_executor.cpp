#include "pipeline/tensorrt_executor.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "cuda/error.hpp"

namespace trtinfer::pipeline {

TensorRtExecutor::TensorRtExecutor(const std::vector<BucketEngine>& engines,
                                   const preprocess::Recipe* recipe, std::vector<TensorSpec> inputs,
                                   std::vector<TensorSpec> outputs,
                                   const TensorRtExecutorOptions& options)
    : inputs_(std::move(inputs)), outputs_(std::move(outputs)), options_(options) {
  const cuda::CurrentDevice device(options_.device);
  if (recipe != nullptr) preprocessor_ = std::make_unique<preprocess::GpuPreprocessor>(*recipe);
  lanes_ = std::vector<Lane>(options.lanes);
  for (Lane& lane : lanes_) open_lane(lane, engines);
}

TensorRtExecutor::~TensorRtExecutor() {
  try {
    const cuda::CurrentDevice device(options_.device);
    for (const Lane& lane : lanes_) lane.stream.synchronize();
    lanes_.clear();
  } catch (const std::exception& error) {
    // A GPU that has failed has nothing left to wait for.
    std::fprintf(stderr, "trtinfer: a GPU that failed was closed: %s\n", error.what());
  }
}

void TensorRtExecutor::open_lane(Lane& lane, const std::vector<BucketEngine>& engines) const {
  const std::size_t rows = std::max<std::uint32_t>(engines.back().size, 1);
  for (const TensorSpec& spec : inputs_) {
    lane.inputs.push_back(cuda::allocate_device(byte_count(spec.type, spec.shape) * rows));
  }
  for (const TensorSpec& spec : outputs_) {
    lane.outputs.push_back(cuda::allocate_device(byte_count(spec.type, spec.shape) * rows));
    lane.host_outputs.push_back(cuda::allocate_pinned(byte_count(spec.type, spec.shape) * rows));
  }
  if (preprocessor_ != nullptr) lane.images = std::make_unique<ImageTransfer>(*preprocessor_);
  std::size_t scratch = 1;
  for (const BucketEngine& engine : engines) {
    tensorrt::ContextOptions context;
    context.allocation = tensorrt::Allocation::kUserManaged;
    context.cache = options_.cache;
    lane.buckets.push_back(
        {engine.size, std::make_unique<tensorrt::ExecutionContext>(engine.engine, context), {}});
    bind(lane, lane.buckets.back());
    scratch = std::max(scratch, lane.buckets.back().context->required_device_memory());
  }
  // A lane runs one bucket at a time, so all of them share their scratch memory.
  lane.scratch = cuda::allocate_device(scratch);
  for (Bucket& bucket : lane.buckets) {
    bucket.context->set_device_memory(lane.scratch.get(), scratch);
  }
  record(lane);
}

void TensorRtExecutor::bind(const Lane& lane, const Bucket& bucket) const {
  for (const tensorrt::IoTensor& tensor : bucket.context->engine().tensors()) {
    if (tensor.is_on_host) {
      throw ExecutionError("tensor \"" + tensor.name + "\" is a shape, which has to be constant");
    }
  }
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Shape shape = inputs_[i].shape;
    if (bucket.size > 0) shape.insert(shape.begin(), bucket.size);
    bucket.context->set_input_shape(inputs_[i].name.c_str(), shape);
    bucket.context->set_address(inputs_[i].name.c_str(), lane.inputs[i].get());
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    bucket.context->set_address(outputs_[i].name.c_str(), lane.outputs[i].get());
  }
}

void TensorRtExecutor::enqueue(const Lane& lane, const Bucket& bucket) const {
  if (preprocessor_ != nullptr) {
    preprocessor_->launch(lane.images->table(), static_cast<int>(bucket.rows()),
                          lane.inputs[0].get(), lane.stream.get());
  }
  bucket.context->enqueue(lane.stream.get());
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    cuda::copy_async(lane.host_outputs[i].get(), lane.outputs[i].get(),
                     byte_count(outputs_[i].type, outputs_[i].shape) * bucket.rows(), lane.stream);
  }
}

void TensorRtExecutor::record(Lane& lane) const {
  for (Bucket& bucket : lane.buckets) {
    // The first enqueue may compile and allocate, which a capture does not allow.
    bucket.context->enqueue(lane.stream.get());
    lane.stream.synchronize();
    bucket.graph = cuda::Graph::capture(lane.stream, [&] { enqueue(lane, bucket); });
  }
  if (lane.images != nullptr) lane.captured_table = lane.images->table();
}

void TensorRtExecutor::send(const Batch& batch, const Lane& lane) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const std::size_t row_bytes = byte_count(inputs_[i].type, inputs_[i].shape);
    std::byte* to = lane.inputs[i].get();
    // Neighbouring slots are one block of memory and cross as one.
    for (std::size_t first = 0; first < batch.units.size();) {
      const std::byte* from = (*batch.units[first].inputs)[i];
      std::size_t bytes = 0, next = first;
      while (next < batch.units.size() && (*batch.units[next].inputs)[i] == from + bytes) {
        bytes += row_bytes * batch.units[next++].rows;
      }
      cuda::copy_async(to, from, bytes, lane.stream);
      to += bytes;
      first = next;
    }
  }
}

void TensorRtExecutor::wait(const Lane& lane) const {
  lane.finished.record(lane.stream);
  lane.finished_blocking.record(lane.stream);
  const ring::Nanoseconds until = ring::now() + options_.spin;
  while (!lane.finished.done()) {
    if (ring::now() < until) continue;
    lane.finished_blocking.synchronize();
    return;
  }
}

void TensorRtExecutor::scatter(const Batch& batch, const Lane& lane) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const std::size_t row_bytes = byte_count(outputs_[i].type, outputs_[i].shape);
    const std::byte* from = lane.host_outputs[i].get();
    for (const BatchUnit& unit : batch.units) {
      std::byte* to = unit.request->outputs[i].data.get();
      std::memcpy(to + row_bytes * unit.first_row, from, row_bytes * unit.rows);
      from += row_bytes * unit.rows;
    }
  }
}

void TensorRtExecutor::run(const Batch& batch) {
  const cuda::CurrentDevice device(options_.device);
  Lane& lane = lanes_[batch.lane];
  Bucket& bucket = *std::find_if(lane.buckets.begin(), lane.buckets.end(),
                                 [&](const Bucket& b) { return b.rows() >= batch.rows; });
  if (preprocessor_ != nullptr) {
    lane.images->send(batch, bucket.rows(), lane.stream);
    if (lane.images->table() != lane.captured_table) record(lane);
  } else {
    send(batch, lane);
  }
  bucket.graph.launch(lane.stream);
  wait(lane);
  scatter(batch, lane);
}

}  // namespace trtinfer::pipeline
