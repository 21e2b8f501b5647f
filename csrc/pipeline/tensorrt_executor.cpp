#include "pipeline/tensorrt_executor.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <utility>

#include "cuda/error.hpp"

namespace trtinfer::pipeline {
namespace {

constexpr ring::Nanoseconds kAskEvery = 20'000;

}  // namespace

TensorRtExecutor::TensorRtExecutor(const std::vector<BucketEngine>& engines,
                                   const preprocess::Recipe* recipe, std::vector<TensorSpec> inputs,
                                   std::vector<TensorSpec> outputs,
                                   const TensorRtExecutorOptions& options)
    : inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      options_(options),
      batched_(engines.front().size > 0),
      varies_(!std::all_of(inputs_.begin(), inputs_.end(),
                           [](const TensorSpec& spec) { return spec.is_static(); })),
      kept_(std::make_shared<cuda::DevicePool>(options.device)) {
  const cuda::CurrentDevice device(options_.device);
  if (recipe != nullptr) preprocessor_ = std::make_unique<preprocess::GpuPreprocessor>(*recipe);
  read_ranges(*engines.front().engine);
  lanes_ = std::vector<Lane>(options.lanes);
  for (Lane& lane : lanes_) open_lane(lane, engines);
  for (std::size_t i = 0; i < outputs_.size() && !varies_; ++i) {
    outputs_[i].shape = lanes_.front().outputs[i].row;  // which the model may have left open
  }
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

Shape TensorRtExecutor::row_of(const Shape& shape) const {
  return {shape.begin() + (batched_ ? 1 : 0), shape.end()};
}

void TensorRtExecutor::read_ranges(const tensorrt::Engine& engine) {
  for (const TensorSpec& input : inputs_) {
    if (input.is_static()) {
      for (auto* rows : {&smallest_, &usual_, &largest_}) rows->push_back(input.shape);
      continue;
    }
    const tensorrt::ShapeRange range = engine.profile_shapes(input.name, 0);
    smallest_.push_back(row_of(range.min));
    usual_.push_back(row_of(range.opt));
    largest_.push_back(row_of(range.max));
  }
}

std::string TensorRtExecutor::refusal(const std::vector<Shape>& shapes) const {
  if (preprocessor_ != nullptr) return image_refusal(shapes.front());
  for (std::size_t i = 0; varies_ && i < inputs_.size(); ++i) {
    const Shape row = row_of(shapes[i]);
    for (std::size_t axis = 0; axis < row.size(); ++axis) {
      if (row[axis] >= smallest_[i][axis] && row[axis] <= largest_[i][axis]) continue;
      return "input \"" + inputs_[i].name + "\" of shape " + tensorrt::to_text(row) +
             " is out of the range of its plan, " + tensorrt::to_text(smallest_[i]) + " to " +
             tensorrt::to_text(largest_[i]);
    }
  }
  return {};
}

void TensorRtExecutor::open_lane(Lane& lane, const std::vector<BucketEngine>& engines) const {
  lane.inputs.resize(inputs_.size());
  lane.outputs.resize(outputs_.size());
  if (preprocessor_ != nullptr) lane.images = std::make_unique<ImageTransfer>(*preprocessor_);
  for (const BucketEngine& engine : engines) open_bucket(lane, engine);
  // The largest first: graphs hold addresses, so all memory has to be there before the first one.
  for (auto bucket = lane.buckets.rbegin(); bucket != lane.buckets.rend(); ++bucket) {
    fit(lane, *bucket, largest_);
  }
  for (const Bucket& bucket : lane.buckets) fit(lane, bucket, usual_);
  for (const Bucket& bucket : lane.buckets) bind(lane, bucket);
  record(lane);
}

void TensorRtExecutor::open_bucket(Lane& lane, const BucketEngine& engine) const {
  for (const tensorrt::IoTensor& tensor : engine.engine->tensors()) {
    if (!tensor.is_on_host) continue;
    throw ExecutionError("tensor \"" + tensor.name + "\" is a shape, which has to be constant");
  }
  tensorrt::ContextOptions context;
  context.allocation = tensorrt::Allocation::kUserManaged;
  // Compiling kernels for a shape takes seconds, which a batch of a new one must not wait for.
  if (varies_) context.specialization = tensorrt::Specialization::kLazy;
  context.cache = options_.cache;
  Bucket& bucket = lane.buckets.emplace_back();
  bucket.size = engine.size;
  bucket.context = std::make_unique<tensorrt::ExecutionContext>(engine.engine, context);
}

void TensorRtExecutor::Tensor::set_row(ElementType type, Shape new_row) {
  row = std::move(new_row);
  row_bytes = byte_count(type, row);
}

void TensorRtExecutor::Tensor::allocate(std::uint32_t rows) {
  capacity = 0;  // what follows may fail
  device.reset();
  device = cuda::allocate_device(bytes(rows));
  capacity = bytes(rows);
}

void TensorRtExecutor::Lane::forget_shapes() {
  for (Bucket& bucket : buckets) bucket.shapes.clear();
}

void TensorRtExecutor::fit(Lane& lane, const Bucket& bucket, const std::vector<Shape>& rows) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Shape shape = rows[i];
    if (batched_) shape.insert(shape.begin(), bucket.size);
    bucket.context->set_input_shape(inputs_[i].name.c_str(), shape);
    lane.inputs[i].set_row(inputs_[i].type, rows[i]);
    if (lane.inputs[i].has_room(bucket.rows())) continue;
    lane.forget_shapes();
    lane.inputs[i].allocate(bucket.rows());
    // Rows that a batch lacks are computed, too, and an index must not be just anything.
    cuda::clear_async(lane.inputs[i].device.get(), lane.inputs[i].capacity, lane.stream);
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    Tensor& output = lane.outputs[i];
    output.set_row(outputs_[i].type, output_row(bucket, outputs_[i]));
    if (output.has_room(bucket.rows())) continue;
    lane.forget_shapes();
    output.allocate(bucket.rows());
    if (options_.keeps_outputs) continue;
    const std::size_t capacity = std::exchange(output.capacity, 0);
    output.host = cuda::allocate_pinned(capacity);
    output.capacity = capacity;
  }
  fit_scratch(lane, bucket);
}

void TensorRtExecutor::fit_scratch(Lane& lane, const Bucket& bucket) const {
  std::size_t bytes = std::max<std::size_t>(bucket.context->required_device_memory(), 1);
  if (varies_) {  // and kernels are replaced while they are in use: as much as any of them needs
    const std::int64_t most = bucket.context->engine().device_memory_size();
    bytes = std::max(bytes, static_cast<std::size_t>(std::max<std::int64_t>(most, 0)));
  }
  // A lane runs one bucket at a time, so all of them share their scratch memory.
  if (bytes <= lane.scratch_bytes) return;
  lane.forget_shapes();
  lane.scratch_bytes = 0;
  lane.scratch.reset();
  lane.scratch = cuda::allocate_device(bytes);
  lane.scratch_bytes = bytes;
}

Shape TensorRtExecutor::output_row(const Bucket& bucket, const TensorSpec& output) const {
  const Shape shape = bucket.context->tensor_shape(output.name.c_str());
  if (std::count(shape.begin(), shape.end(), -1) > 0) {
    throw ExecutionError("the shape of output \"" + output.name +
                         "\" depends on the inputs' values, which only the CPU backend can run");
  }
  if (batched_ && (shape.empty() || shape[0] != bucket.size)) {
    throw ExecutionError("output \"" + output.name + "\" has no row for each of the " +
                         std::to_string(bucket.size) +
                         " samples: open the session with batched=False");
  }
  return row_of(shape);
}

void TensorRtExecutor::bind(const Lane& lane, const Bucket& bucket) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    bucket.context->set_address(inputs_[i].name.c_str(), lane.inputs[i].device.get());
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    bucket.context->set_address(outputs_[i].name.c_str(), lane.outputs[i].device.get());
  }
  bucket.context->set_device_memory(lane.scratch.get(), lane.scratch_bytes);
}

std::uint32_t TensorRtExecutor::most_reads(const Lane& lane, const Bucket& bucket) const {
  if (varies_) return 0;
  std::size_t bytes = 0;
  for (const Tensor& input : lane.inputs) bytes += input.row_bytes * bucket.rows();
  // Images are of any size, and may be smaller than what is made of them.
  if (bytes > HostCopies::kReadBytes && preprocessor_ == nullptr) return 0;
  return std::min(bucket.rows() * static_cast<std::uint32_t>(inputs_.size()), kMostReads);
}

void TensorRtExecutor::enqueue(const Lane& lane, const Bucket& bucket) const {
  if (bucket.reads > 0) lane.reader.launch(bucket.reads, lane.stream);
  if (preprocessor_ != nullptr) {
    preprocessor_->launch(lane.images->table(), static_cast<int>(bucket.rows()),
                          lane.inputs[0].device.get(), lane.stream.get());
  }
  bucket.context->enqueue(lane.stream.get());
  if (!options_.keeps_outputs) deliver(lane, bucket);
}

void TensorRtExecutor::deliver(const Lane& lane, const Bucket& bucket) const {
  std::array<cuda::HostWriter::Output, cuda::HostWriter::kMostOutputs> written;
  std::size_t count = 0;
  for (const Tensor& output : lane.outputs) {
    const std::size_t bytes = output.row_bytes * bucket.rows();
    if (bytes <= kMostWrites && count < written.size()) {
      written[count++] = {output.device.get(), output.host.get(), bytes};
    } else {
      cuda::copy_async(output.host.get(), output.device.get(), bytes, lane.stream);
    }
  }
  lane.writer.launch({written.data(), count}, lane.stream);
}

void TensorRtExecutor::keep_outputs(const Batch& batch, const Lane& lane) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Tensor& output = lane.outputs[i];
    const std::byte* from = output.device.get();
    for (const BatchUnit& unit : batch.units) {
      const std::size_t bytes = output.row_bytes * unit.rows;
      std::shared_ptr<std::byte> to = kept_->take(bytes);
      cuda::copy_async(to.get(), from, bytes, lane.stream);
      unit.request->keep_output(i, output.row, batched_, std::move(to), options_.device);
      from += bytes;
    }
  }
  lane.writer.launch({}, lane.stream);
}

void TensorRtExecutor::record(Lane& lane) const {
  for (Bucket& bucket : lane.buckets) {
    // The first enqueue may compile and allocate, which a capture does not allow.
    bucket.context->enqueue(lane.stream.get());
    lane.stream.synchronize();
    if (varies_) continue;
    bucket.reads = most_reads(lane, bucket);
    bucket.graph.capture(lane.stream, [&] { enqueue(lane, bucket); });
  }
  if (lane.images != nullptr) lane.captured_table = lane.images->table();
}

void TensorRtExecutor::send(const Batch& batch, Lane& lane) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const std::size_t row_bytes = lane.inputs[i].row_bytes;
    std::byte* to = lane.inputs[i].device.get();
    for (const BatchUnit& unit : batch.units) {
      if (const DeviceInput* input = unit.device_input(i)) {
        copy_async(*input, to, input->block_bytes, lane.stream);
      } else {
        lane.copies.add(to, (*unit.inputs)[i], row_bytes * unit.rows);
      }
      to += row_bytes * unit.rows;
    }
  }
}

void TensorRtExecutor::bring_inputs(const Batch& batch, Lane& lane, const Bucket& bucket) const {
  lane.copies.clear();
  lane.reader.clear();
  if (preprocessor_ != nullptr) {
    lane.images->send(batch, bucket.rows(), lane.copies, lane.stream);
    if (lane.images->table() != lane.captured_table) record(lane);
  } else {
    send(batch, lane);
  }
  if (!batch.inputs_consumed && lane.copies.suit(bucket.reads)) {
    return lane.copies.leave_to(lane.reader);
  }
  lane.copies.enqueue(lane.stream);
  if (batch.inputs_consumed) lane.consumed.record(lane.stream);
}

void TensorRtExecutor::launch(const Batch& batch, Lane& lane, Bucket& bucket) {
  const cuda::Graph& graph = varies_ ? graph_for(batch, lane, bucket) : bucket.graph;
  bring_inputs(batch, lane, bucket);
  graph.launch(lane.stream);
  if (options_.keeps_outputs) keep_outputs(batch, lane);
  lane.writer.expect();
}

void TensorRtExecutor::wait(const Batch& batch, const Lane& lane) const {
  bool kept = static_cast<bool>(batch.inputs_consumed);
  ring::Nanoseconds now = ring::now(), asked = now;
  const ring::Nanoseconds until = now + options_.spin;
  for (; !lane.writer.done(); now = ring::now()) {
    if (kept && lane.consumed.done()) {
      batch.inputs_consumed();
      kept = false;
    }
    if (now >= until) return block(batch, lane, kept);
    // A GPU that has failed writes nothing; only the driver knows.
    if (now - asked < kAskEvery) continue;
    asked = now;
    if (lane.stream.idle()) return;
  }
}

void TensorRtExecutor::block(const Batch& batch, const Lane& lane, bool kept) {
  lane.finished.record(lane.stream);
  if (kept) {
    lane.consumed.synchronize();
    batch.inputs_consumed();
  }
  lane.finished.synchronize();
}

void TensorRtExecutor::settle(const Lane& lane) noexcept {
  try {
    lane.stream.synchronize();
  } catch (const std::exception&) {  // a GPU that has failed does nothing any more
    return;
  }
}

void TensorRtExecutor::scatter(const Batch& batch, const Lane& lane) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Tensor& output = lane.outputs[i];
    const std::byte* from = output.host.get();
    for (const BatchUnit& unit : batch.units) {
      std::byte* to = unit.request->outputs[i].data.get();
      std::memcpy(to + output.row_bytes * unit.first_row, from, output.row_bytes * unit.rows);
      from += output.row_bytes * unit.rows;
    }
  }
}

const cuda::Graph& TensorRtExecutor::graph_for(const Batch& batch, Lane& lane, Bucket& bucket) {
  check_rows_agree(batch);
  std::vector<Shape> rows;
  rows.reserve(inputs_.size());
  for (const Shape& shape : *batch.units.front().shapes) rows.push_back(row_of(shape));
  ShapeGraph* graph = bucket.shapes.use(rows);
  if (graph == nullptr) {
    graph = &capture(lane, bucket, rows);
  } else {
    set_rows(lane, *graph);
  }
  if (!options_.keeps_outputs) place_outputs(batch, lane);
  return graph->graph;
}

ShapeGraph& TensorRtExecutor::capture(Lane& lane, Bucket& bucket, const std::vector<Shape>& rows) {
  const std::lock_guard lock(new_shapes_);
  fit(lane, bucket, rows);
  bind(lane, bucket);
  ShapeGraph& graph = bucket.shapes.renew(rows);
  graph.outputs.clear();
  for (const Tensor& output : lane.outputs) graph.outputs.push_back(output.row);
  const auto record = [&] { graph.graph.capture(lane.stream, [&] { enqueue(lane, bucket); }); };
  try {
    record();
  } catch (const std::exception&) {
    // Where a context has to run a shape once, to compile or allocate, before it is captured.
    bucket.context->enqueue(lane.stream.get());
    lane.stream.synchronize();
    record();
  }
  ++graph.uses;
  return graph;
}

void TensorRtExecutor::set_rows(Lane& lane, const ShapeGraph& graph) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    lane.inputs[i].set_row(inputs_[i].type, graph.inputs[i]);
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    lane.outputs[i].set_row(outputs_[i].type, graph.outputs[i]);
  }
}

void TensorRtExecutor::place_outputs(const Batch& batch, const Lane& lane) const {
  for (const BatchUnit& unit : batch.units) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (unit.request->output(i, outputs_[i], lane.outputs[i].row, batched_) != nullptr) continue;
      throw BatchError("parts of one request gave outputs of two shapes");
    }
  }
}

TensorRtExecutor::Bucket& TensorRtExecutor::bucket_for(Lane& lane, std::uint32_t rows) {
  const auto found = std::find_if(lane.buckets.begin(), lane.buckets.end(),
                                  [&](const Bucket& bucket) { return bucket.rows() >= rows; });
  if (found != lane.buckets.end()) return *found;
  throw ExecutionError("a batch of " + std::to_string(rows) + " rows, and no plan for as many");
}

std::vector<LaneStream> TensorRtExecutor::streams() const {
  std::vector<LaneStream> streams;
  streams.reserve(lanes_.size());
  for (const Lane& lane : lanes_) streams.push_back({options_.device, lane.stream.get()});
  return streams;
}

void TensorRtExecutor::run(const Batch& batch) {
  const cuda::CurrentDevice device(options_.device);
  Lane& lane = lanes_[batch.lane];
  Bucket& bucket = bucket_for(lane, batch.rows);
  try {
    launch(batch, lane, bucket);
    wait(batch, lane);
  } catch (...) {
    settle(lane);
    throw;
  }
  if (!options_.keeps_outputs) scatter(batch, lane);
  batches_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace trtinfer::pipeline
