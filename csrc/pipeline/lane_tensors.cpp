#include "pipeline/lane_tensors.hpp"

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

namespace trtinfer::pipeline {
namespace {

constexpr std::size_t kMostWrites = 1 << 20;  // bytes of outputs that a kernel writes

}  // namespace

void LaneTensors::Tensor::set_row(ElementType type, Shape new_row) {
  row = std::move(new_row);
  row_bytes = byte_count(type, row);
}

void LaneTensors::Tensor::allocate(std::uint32_t rows) {
  capacity = 0;  // what follows may fail
  device.reset();
  device = cuda::allocate_device(bytes(rows));
  capacity = bytes(rows);
}

LaneTensors::LaneTensors(const TensorRtShared& shared, const cuda::Stream& stream,
                         std::function<void()> before_move)
    : shared_(shared),
      stream_(stream),
      before_move_(std::move(before_move)),
      inputs_(shared.inputs.size()),
      outputs_(shared.outputs.size()) {}

void LaneTensors::fit(tensorrt::ExecutionContext& context, std::uint32_t count,
                      const std::vector<Shape>& rows) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const TensorSpec& spec = shared_.inputs[i];
    Shape shape = rows[i];
    if (shared_.batched) shape.insert(shape.begin(), count);
    context.set_input_shape(spec.name.c_str(), shape);
    inputs_[i].set_row(spec.type, rows[i]);
    if (inputs_[i].has_room(count)) continue;
    before_move_();
    inputs_[i].allocate(count);
    // Rows that a batch lacks are computed, too, and an index must not be just anything.
    cuda::clear_async(inputs_[i].device.get(), inputs_[i].capacity, stream_);
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    Tensor& output = outputs_[i];
    output.set_row(shared_.outputs[i].type, output_row(context, count, shared_.outputs[i]));
    if (output.has_room(count)) continue;
    before_move_();
    output.allocate(count);
    if (shared_.options.keeps_outputs) continue;
    const std::size_t capacity = std::exchange(output.capacity, 0);
    output.host = cuda::allocate_pinned(capacity);
    output.capacity = capacity;
  }
  fit_scratch(context);
}

void LaneTensors::fit_scratch(tensorrt::ExecutionContext& context) {
  std::size_t bytes = std::max<std::size_t>(context.required_device_memory(), 1);
  if (shared_.varies) {  // and kernels are replaced in use: as much as any of them needs
    const std::int64_t most = context.engine().device_memory_size();
    bytes = std::max(bytes, static_cast<std::size_t>(std::max<std::int64_t>(most, 0)));
  }
  // A lane runs one bucket at a time, so all of them share their scratch memory.
  if (bytes <= scratch_bytes_) return;
  before_move_();
  scratch_bytes_ = 0;
  scratch_.reset();
  scratch_ = cuda::allocate_device(bytes);
  scratch_bytes_ = bytes;
}

Shape LaneTensors::output_row(const tensorrt::ExecutionContext& context, std::uint32_t count,
                              const TensorSpec& output) const {
  const Shape shape = context.tensor_shape(output.name.c_str());
  if (std::count(shape.begin(), shape.end(), -1) > 0) {
    throw ExecutionError("the shape of output \"" + output.name +
                         "\" depends on the inputs' values, which only the CPU backend can run");
  }
  if (shared_.batched && (shape.empty() || shape[0] != count)) {
    throw ExecutionError("output \"" + output.name + "\" has no row for each of the " +
                         std::to_string(count) + " samples: open the session with batched=False");
  }
  return shared_.row_of(shape);
}

void LaneTensors::bind(tensorrt::ExecutionContext& context) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    context.set_address(shared_.inputs[i].name.c_str(), inputs_[i].device.get());
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    context.set_address(shared_.outputs[i].name.c_str(), outputs_[i].device.get());
  }
  context.set_device_memory(scratch_.get(), scratch_bytes_);
}

void LaneTensors::set_rows(const std::vector<Shape>& inputs, const std::vector<Shape>& outputs) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    inputs_[i].set_row(shared_.inputs[i].type, inputs[i]);
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    outputs_[i].set_row(shared_.outputs[i].type, outputs[i]);
  }
}

std::vector<Shape> LaneTensors::output_rows() const {
  std::vector<Shape> rows;
  rows.reserve(outputs_.size());
  for (const Tensor& output : outputs_) rows.push_back(output.row);
  return rows;
}

std::size_t LaneTensors::input_bytes(std::uint32_t count) const {
  std::size_t bytes = 0;
  for (const Tensor& input : inputs_) bytes += input.row_bytes * count;
  return bytes;
}

void LaneTensors::place_outputs(const Batch& batch) const {
  for (const BatchUnit& unit : batch.units) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const std::byte* place =
          unit.request->output(i, shared_.outputs[i], outputs_[i].row, shared_.batched);
      if (place == nullptr) throw BatchError("parts of one request gave outputs of two shapes");
    }
  }
}

void LaneTensors::deliver(std::uint32_t count, const cuda::HostWriter& writer) const {
  std::array<cuda::HostWriter::Output, cuda::HostWriter::kMostOutputs> written;
  std::size_t used = 0;
  bool copied = false;
  for (const Tensor& output : outputs_) {
    const std::size_t bytes = output.row_bytes * count;
    if (bytes <= kMostWrites && used < written.size()) {
      written[used++] = {output.device.get(), output.host.get(), bytes};
      continue;
    }
    if (!copied) writer.start(stream_);
    copied = true;
    cuda::copy_async(output.host.get(), output.device.get(), bytes, stream_);
  }
  writer.launch({written.data(), used}, stream_);
}

void LaneTensors::scatter(const Batch& batch) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Tensor& output = outputs_[i];
    const std::byte* from = output.host.get();
    for (const BatchUnit& unit : batch.units) {
      std::byte* to = unit.request->outputs[i].data.get();
      std::memcpy(to + output.row_bytes * unit.first_row, from, output.row_bytes * unit.rows);
      from += output.row_bytes * unit.rows;
    }
  }
}

void LaneTensors::keep_outputs(const Batch& batch) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Tensor& output = outputs_[i];
    const std::byte* from = output.device.get();
    for (const BatchUnit& unit : batch.units) {
      const std::size_t bytes = output.row_bytes * unit.rows;
      std::shared_ptr<std::byte> to = shared_.kept->take(bytes);
      cuda::copy_async(to.get(), from, bytes, stream_);
      unit.request->keep_output(i, output.row, shared_.batched, std::move(to),
                                shared_.options.device);
      from += bytes;
    }
  }
}

}  // namespace trtinfer::pipeline
