#include "pipeline/onnxruntime_executor.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace trtinfer::pipeline {

using onnxruntime::Value;

OnnxRuntimeExecutor::OnnxRuntimeExecutor(
    std::shared_ptr<const onnxruntime::Model> model,
    std::shared_ptr<const preprocess::HostPreprocessor> preprocessor,
    std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs,
    const OnnxRuntimeExecutorOptions& options)
    : model_(std::move(model)),
      preprocessor_(std::move(preprocessor)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      options_(options),
      lanes_(options.lanes) {
  for (Lane& lane : lanes_) {
    lane.inputs.resize(inputs_.size());
    lane.outputs.resize(outputs_.size());
    lane.input_values.resize(inputs_.size());
    lane.output_values.resize(outputs_.size());
  }
}

std::uint64_t OnnxRuntimeExecutor::batch_key(const std::vector<Shape>& shapes) const {
  return preprocessor_ == nullptr ? row_key(shapes) : 0;  // images of any size give equal rows
}

std::uint32_t OnnxRuntimeExecutor::run_rows(const Batch& batch) const {
  return options_.batching == Batching::kFixed ? options_.fixed_batch : batch.rows;
}

Shape OnnxRuntimeExecutor::batch_shape(const Batch& batch, std::size_t input) const {
  // Only requests of one shape share a batch, so the first unit speaks for all.
  const std::vector<Shape>& shapes = *batch.units.front().shapes;
  Shape shape = preprocessor_ != nullptr || shapes.empty() ? inputs_[input].shape : shapes[input];
  if (options_.batching == Batching::kNone) return shape;
  const bool has_rows = preprocessor_ == nullptr && !shapes.empty();
  if (has_rows) {
    shape[0] = run_rows(batch);
  } else {
    shape.insert(shape.begin(), run_rows(batch));
  }
  return shape;
}

std::byte* OnnxRuntimeExecutor::contiguous(const Batch& batch, std::size_t input,
                                           std::size_t row_bytes) const {
  if (run_rows(batch) != batch.rows && options_.batching != Batching::kNone) return nullptr;
  std::byte* next = (*batch.units.front().inputs)[input];
  for (const BatchUnit& unit : batch.units) {
    if ((*unit.inputs)[input] != next) return nullptr;
    next += row_bytes * unit.rows;
  }
  return (*batch.units.front().inputs)[input];
}

void OnnxRuntimeExecutor::gather(const Batch& batch, std::size_t input, std::size_t row_bytes,
                                 Lane& lane) const {
  std::vector<std::byte>& buffer = lane.inputs[input];
  buffer.resize(row_bytes * run_rows(batch));
  std::byte* to = buffer.data();
  for (const BatchUnit& unit : batch.units) {
    std::memcpy(to, (*unit.inputs)[input], row_bytes * unit.rows);
    to += row_bytes * unit.rows;
  }
  std::fill(to, buffer.data() + buffer.size(), std::byte{0});
}

void OnnxRuntimeExecutor::preprocess(const Batch& batch, Lane& lane) const {
  std::vector<std::byte>& buffer = lane.inputs[0];
  const std::size_t row_bytes = byte_count(inputs_[0].type, inputs_[0].shape);
  buffer.resize(row_bytes * run_rows(batch));
  std::byte* to = buffer.data();
  for (const BatchUnit& unit : batch.units) {
    const Shape& shape = unit.shapes->front();
    const int height = static_cast<int>(shape[0]), width = static_cast<int>(shape[1]);
    const auto* pixels = reinterpret_cast<const std::uint8_t*>(unit.inputs->front());
    preprocessor_->run({pixels, height, width, std::ptrdiff_t{3} * width}, to);
    to += row_bytes;
  }
  std::fill(to, buffer.data() + buffer.size(), std::byte{0});
}

void OnnxRuntimeExecutor::place_inputs(const Batch& batch, Lane& lane) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Value& value = lane.input_values[i];
    value.element_type = static_cast<std::int32_t>(inputs_[i].type);
    value.shape = batch_shape(batch, i);
    value.bytes = byte_count(inputs_[i].type, value.shape);
    value.data = lane.inputs[i].data();
    if (preprocessor_ != nullptr) continue;
    const bool whole = options_.batching == Batching::kNone;
    const std::size_t row_bytes = whole ? value.bytes : value.bytes / run_rows(batch);
    value.data = contiguous(batch, i, row_bytes);
    if (value.data != nullptr) continue;
    gather(batch, i, row_bytes, lane);
    value.data = lane.inputs[i].data();
  }
}

void OnnxRuntimeExecutor::place_outputs(const Batch& batch, Lane& lane) const {
  Request& first = *batch.units.front().request;
  const bool alone = batch.units.size() == 1 && batch.rows == first.rows;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    Value& value = lane.output_values[i];
    value = Value{};
    value.element_type = static_cast<std::int32_t>(outputs_[i].type);
    if (!outputs_[i].is_static() || element_count(outputs_[i].shape) == 0) continue;
    value.shape = outputs_[i].shape;
    if (options_.batching != Batching::kNone) {
      value.shape.insert(value.shape.begin(), run_rows(batch));
    }
    value.bytes = byte_count(outputs_[i].type, value.shape);
    if (alone && run_rows(batch) == batch.rows) {
      value.data = first.outputs[i].data.get();  // straight into the caller's memory
    } else {
      lane.outputs[i].resize(value.bytes);
      value.data = lane.outputs[i].data();
    }
  }
}

void OnnxRuntimeExecutor::check_rows(const Batch& batch, std::size_t output,
                                     const Value& value) const {
  if (!value.shape.empty() && value.shape[0] == run_rows(batch)) return;
  throw ExecutionError("output \"" + outputs_[output].name + "\" has no row for each of the " +
                       std::to_string(run_rows(batch)) +
                       " samples: open the session with batched=False");
}

void OnnxRuntimeExecutor::hand_over(Request& request, std::size_t output, Value& value) const {
  OutputTensor& tensor = request.outputs[output];
  tensor.shape = value.shape;
  if (options_.batching != Batching::kNone && !request.has_batch_axis) {
    tensor.shape.erase(tensor.shape.begin());
  }
  tensor.data = {value.owner, static_cast<std::byte*>(value.data)};
}

void OnnxRuntimeExecutor::scatter(const Batch& batch, std::size_t output,
                                  const Value& value) const {
  const Shape row(value.shape.begin() + 1, value.shape.end());
  const std::size_t row_bytes = byte_count(outputs_[output].type, row);
  const auto* from = static_cast<const std::byte*>(value.data);
  for (const BatchUnit& unit : batch.units) {
    std::byte* to = unit.request->output(output, outputs_[output], row, true);
    if (to == nullptr) throw ExecutionError("parts of one request gave outputs of two shapes");
    std::memcpy(to + row_bytes * unit.first_row, from, row_bytes * unit.rows);
    from += row_bytes * unit.rows;
  }
}

TransferTimes OnnxRuntimeExecutor::run(const Batch& batch) {
  Lane& lane = lanes_[batch.lane];
  if (preprocessor_ == nullptr) check_rows_agree(batch);
  if (preprocessor_ != nullptr) preprocess(batch, lane);
  const ring::Nanoseconds start = ring::now();
  place_inputs(batch, lane);
  const ring::Nanoseconds placed = ring::now();
  place_outputs(batch, lane);
  try {
    model_->run(lane.input_values, lane.output_values);
  } catch (const std::exception& error) {
    throw ExecutionError(error.what());
  }
  const ring::Nanoseconds answered = ring::now();
  Request& first = *batch.units.front().request;
  const bool alone = batch.units.size() == 1 && batch.rows == first.rows &&
                     (options_.batching == Batching::kNone || run_rows(batch) == batch.rows);
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    Value& value = lane.output_values[i];
    if (options_.batching != Batching::kNone) check_rows(batch, i, value);
    if (!alone) {
      scatter(batch, i, value);
    } else if (value.owner != nullptr) {
      hand_over(first, i, value);
    }
    value.owner.reset();
  }
  return {placed - start, ring::now() - answered};
}

}  // namespace trtinfer::pipeline
