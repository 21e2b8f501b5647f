#include "pipeline/tensorrt_lane.hpp"

#include <algorithm>
#include <exception>
#include <mutex>
#include <string>

namespace trtinfer::pipeline {
namespace {

constexpr ring::Nanoseconds kAskEvery = 200'000;

/// Whether it waits for others who have yet to write its inputs: for how long, nobody knows.
bool reads_device_inputs(const Batch& batch) {
  return std::any_of(batch.units.begin(), batch.units.end(), [](const BatchUnit& unit) {
    return unit.device_inputs != nullptr && !unit.device_inputs->empty();
  });
}

}  // namespace

TensorRtLane::TensorRtLane(const TensorRtShared& shared, const std::vector<BucketEngine>& engines)
    : shared_(shared), tensors_(shared, stream_, [this] {
        for (Bucket& bucket : buckets_) bucket.shapes.clear();
      }) {
  if (shared_.preprocessor != nullptr) {
    images_ = std::make_unique<ImageTransfer>(*shared_.preprocessor);
  }
  for (const BucketEngine& engine : engines) open_bucket(engine);
  // The largest first: graphs hold addresses, so all memory has to be there before the first one.
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
    tensors_.fit(*bucket->context, bucket->rows, shared_.largest);
  }
  for (const Bucket& bucket : buckets_) tensors_.fit(*bucket.context, bucket.rows, shared_.usual);
  for (const Bucket& bucket : buckets_) tensors_.bind(*bucket.context);
  for (const Bucket& bucket : buckets_) {
    // The first enqueue may compile and allocate, which a capture does not allow.
    bucket.context->enqueue(stream_.get());
    stream_.synchronize();
  }
}

void TensorRtLane::open_bucket(const BucketEngine& engine) {
  for (const tensorrt::IoTensor& tensor : engine.engine->tensors()) {
    if (!tensor.is_on_host) continue;
    throw ExecutionError("tensor \"" + tensor.name + "\" is a shape, which has to be constant");
  }
  tensorrt::ContextOptions context;
  context.allocation = tensorrt::Allocation::kUserManaged;
  // Compiling kernels for a shape takes seconds, which a batch of a new one must not wait for.
  if (shared_.varies) context.specialization = tensorrt::Specialization::kLazy;
  context.cache = shared_.options.cache;
  Bucket& bucket = buckets_.emplace_back();
  bucket.rows = std::max(engine.size, 1U);
  bucket.context = std::make_unique<tensorrt::ExecutionContext>(engine.engine, context);
}

cuda::Graph TensorRtLane::capture_engine(std::size_t bucket) const {
  cuda::Graph graph;
  graph.capture(stream_, [&] { buckets_[bucket].context->enqueue(stream_.get()); });
  return graph;
}

void TensorRtLane::record() {
  if (shared_.varies) return;  // graphs are captured as shapes come
  for (Bucket& bucket : buckets_) {
    bucket.reads = most_reads(bucket);
    bucket.graph.capture(stream_, [&] { enqueue(bucket); });
  }
  if (images_ != nullptr) captured_table_ = images_->table();
}

std::uint32_t TensorRtLane::most_reads(const Bucket& bucket) const {
  // The graph has to wait for its turn, and inputs cross meanwhile.
  if (bucket.in_turn) return 0;
  // Images are of any size, and may be smaller than what is made of them.
  if (tensors_.input_bytes(bucket.rows) > HostCopies::kReadBytes && images_ == nullptr) return 0;
  return std::min(bucket.rows * static_cast<std::uint32_t>(shared_.inputs.size()), kMostReads);
}

void TensorRtLane::enqueue(const Bucket& bucket) const {
  if (bucket.reads > 0) reader_.launch(bucket.reads, stream_);
  if (images_ != nullptr && !bucket.in_turn) preprocess(bucket);
  bucket.context->enqueue(stream_.get());
  if (!shared_.options.keeps_outputs) tensors_.deliver(bucket.rows, writer_);
}

void TensorRtLane::preprocess(const Bucket& bucket) const {
  shared_.preprocessor->launch(images_->table(), static_cast<int>(bucket.rows), tensors_.input(0),
                               stream_.get());
}

void TensorRtLane::send(const Batch& batch) {
  for (std::size_t i = 0; i < shared_.inputs.size(); ++i) {
    const std::size_t row_bytes = tensors_.input_row_bytes(i);
    std::byte* to = tensors_.input(i);
    for (const BatchUnit& unit : batch.units) {
      if (const DeviceInput* input = unit.device_input(i)) {
        copy_async(*input, to, input->block_bytes, stream_);
      } else {
        copies_.add(to, (*unit.inputs)[i], row_bytes * unit.rows);
      }
      to += row_bytes * unit.rows;
    }
  }
}

void TensorRtLane::bring_inputs(const Batch& batch, const Bucket& bucket) {
  copies_.clear();
  reader_.clear();
  if (images_ != nullptr) {
    images_->send(batch, bucket.rows, copies_, stream_);
    if (images_->table() != captured_table_) record();
  } else {
    send(batch);
  }
  by_engines_ = batch.inputs_consumed || !copies_.suit(bucket.reads);
  if (!by_engines_) return copies_.leave_to(reader_);
  crossing_.record(stream_);
  copies_.enqueue(stream_);
  crossed_.record(stream_);
  if (batch.inputs_consumed) consumed_.record(stream_);
}

void TensorRtLane::launch(const Batch& batch, Bucket& bucket) {
  const cuda::Graph& graph = shared_.varies ? graph_for(batch, bucket) : bucket.graph;
  bring_inputs(batch, bucket);
  const auto start = [&] {
    graph.launch(stream_);
    if (!shared_.options.keeps_outputs) writer_.expect();
  };
  if (bucket.in_turn && images_ != nullptr) preprocess(bucket);
  if (bucket.in_turn && !reads_device_inputs(batch)) {
    shared_.turns.take(stream_, computed_, start);
  } else {
    start();
  }
  if (!shared_.options.keeps_outputs) return;
  tensors_.keep_outputs(batch);
  writer_.launch({}, stream_);
  writer_.expect();
}

void TensorRtLane::wait(const Batch& batch) const {
  bool kept = static_cast<bool>(batch.inputs_consumed);
  ring::Nanoseconds now = ring::now(), asked = now;
  const ring::Nanoseconds until = now + shared_.options.spin;
  for (; !writer_.done(); now = ring::now()) {
    if (kept && consumed_.done()) {
      batch.inputs_consumed();
      kept = false;
    }
    if (now >= until) return block(batch, kept);
    // A GPU that has failed writes nothing; only the driver knows.
    if (now - asked < kAskEvery) continue;
    asked = now;
    if (stream_.idle()) return;
  }
}

void TensorRtLane::block(const Batch& batch, bool kept) const {
  finished_.record(stream_);
  if (kept) {
    consumed_.synchronize();
    batch.inputs_consumed();
  }
  finished_.synchronize();
}

void TensorRtLane::settle() const noexcept {
  try {
    stream_.synchronize();
  } catch (const std::exception&) {  // a GPU that has failed does nothing any more
    return;
  }
}

const cuda::Graph& TensorRtLane::graph_for(const Batch& batch, Bucket& bucket) {
  check_rows_agree(batch);
  std::vector<Shape> rows;
  rows.reserve(shared_.inputs.size());
  for (const Shape& shape : *batch.units.front().shapes) rows.push_back(shared_.row_of(shape));
  ShapeGraph* graph = bucket.shapes.use(rows);
  if (graph == nullptr) {
    graph = &capture(bucket, rows);
  } else {
    tensors_.set_rows(graph->inputs, graph->outputs);
  }
  if (!shared_.options.keeps_outputs) tensors_.place_outputs(batch);
  return graph->graph;
}

ShapeGraph& TensorRtLane::capture(Bucket& bucket, const std::vector<Shape>& rows) {
  const std::lock_guard lock(shared_.new_shapes);
  tensors_.fit(*bucket.context, bucket.rows, rows);
  tensors_.bind(*bucket.context);
  ShapeGraph& graph = bucket.shapes.renew(rows);
  graph.outputs = tensors_.output_rows();
  const auto record = [&] { graph.graph.capture(stream_, [&] { enqueue(bucket); }); };
  try {
    record();
  } catch (const std::exception&) {
    // Where a context has to run a shape once, to compile or allocate, before it is captured.
    bucket.context->enqueue(stream_.get());
    stream_.synchronize();
    record();
  }
  ++graph.uses;
  return graph;
}

TensorRtLane::Bucket& TensorRtLane::bucket_for(std::uint32_t rows) {
  const auto found = std::find_if(buckets_.begin(), buckets_.end(),
                                  [&](const Bucket& bucket) { return bucket.rows >= rows; });
  if (found != buckets_.end()) return *found;
  throw ExecutionError("a batch of " + std::to_string(rows) + " rows, and no plan for as many");
}

TransferTimes TensorRtLane::transfer_times() const {
  const cuda::HostCopyTimes times = writer_.times();
  if (!by_engines_) return {times.reading, times.writing};
  const double crossing = 1e3 * crossed_.microseconds_since(crossing_);
  return {static_cast<ring::Nanoseconds>(crossing), times.writing};
}

TransferTimes TensorRtLane::run(const Batch& batch) {
  Bucket& bucket = bucket_for(batch.rows);
  TransferTimes times;
  try {
    launch(batch, bucket);
    wait(batch);
    times = transfer_times();
  } catch (...) {
    settle();
    throw;
  }
  if (shared_.options.keeps_outputs) return times;
  const ring::Nanoseconds written = ring::now();
  tensors_.scatter(batch);
  times.output += ring::now() - written;
  return times;
}

}  // namespace trtinfer::pipeline
