#include "pipeline/tensorrt_executor.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <utility>

#include "cuda/graph.hpp"

namespace trtinfer::pipeline {
namespace {

constexpr double kSideBySidePays = 1.1;                // times the rate of one engine after another
constexpr int kTrials = 8;                             // in a row, in which no time gets shorter
constexpr ring::Nanoseconds kTrialTime = 300'000'000;  // after which there are no more

bool vary(const std::vector<TensorSpec>& inputs) {
  return !std::all_of(inputs.begin(), inputs.end(),
                      [](const TensorSpec& spec) { return spec.is_static(); });
}

}  // namespace

TensorRtExecutor::TensorRtExecutor(const std::vector<BucketEngine>& engines,
                                   const preprocess::Recipe* recipe, std::vector<TensorSpec> inputs,
                                   std::vector<TensorSpec> outputs,
                                   const TensorRtExecutorOptions& options) {
  shared_.options = options;
  shared_.inputs = std::move(inputs);
  shared_.outputs = std::move(outputs);
  shared_.batched = engines.front().size > 0;
  shared_.varies = vary(shared_.inputs);
  shared_.kept = std::make_shared<cuda::DevicePool>(options.device);
  const cuda::CurrentDevice device(options.device);
  if (recipe != nullptr) {
    shared_.preprocessor = std::make_unique<preprocess::GpuPreprocessor>(*recipe);
  }
  read_ranges(*engines.front().engine);
  for (std::uint32_t i = 0; i < options.lanes; ++i) {
    lanes_.push_back(std::make_unique<TensorRtLane>(shared_, engines));
  }
  if (lanes_.size() > 1 && !shared_.varies) choose_turns(engines.size());
  for (const auto& lane : lanes_) lane->record();
  if (shared_.varies) return;
  const std::vector<Shape> rows = lanes_.front()->output_rows();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    shared_.outputs[i].shape = rows[i];  // which the model may have left open
  }
}

TensorRtExecutor::~TensorRtExecutor() {
  try {
    const cuda::CurrentDevice device(shared_.options.device);
    for (const auto& lane : lanes_) lane->stream().synchronize();
    lanes_.clear();
  } catch (const std::exception& error) {
    // A GPU that has failed has nothing left to wait for.
    std::fprintf(stderr, "trtinfer: a GPU that failed was closed: %s\n", error.what());
  }
}

void TensorRtExecutor::read_ranges(const tensorrt::Engine& engine) {
  for (const TensorSpec& input : shared_.inputs) {
    if (input.is_static()) {
      for (auto* rows : {&shared_.smallest, &shared_.usual, &shared_.largest}) {
        rows->push_back(input.shape);
      }
      continue;
    }
    const tensorrt::ShapeRange range = engine.profile_shapes(input.name, 0);
    shared_.smallest.push_back(shared_.row_of(range.min));
    shared_.usual.push_back(shared_.row_of(range.opt));
    shared_.largest.push_back(shared_.row_of(range.max));
  }
}

void TensorRtExecutor::choose_turns(std::size_t buckets) {
  for (std::size_t i = 0; i < buckets; ++i) {
    if (gain_side_by_side(i) >= kSideBySidePays) continue;
    for (const auto& lane : lanes_) lane->take_turns(i);
  }
}

/// The rate of two lanes' engines side by side, in that of one after another.
double TensorRtExecutor::gain_side_by_side(std::size_t bucket) const {
  std::array<cuda::Graph, 2> graphs;
  for (std::size_t i = 0; i < graphs.size(); ++i) graphs[i] = lanes_[i]->capture_engine(bucket);
  const auto time = [&](std::size_t count) {
    const ring::Nanoseconds start = ring::now();
    for (std::size_t i = 0; i < count; ++i) graphs[i].launch(lanes_[i]->stream());
    for (std::size_t i = 0; i < count; ++i) lanes_[i]->stream().synchronize();
    return ring::now() - start;
  };
  time(graphs.size());  // a graph's first launch takes longer
  // The GPU's clock rises for a while once it works: whichever came last would seem the quicker.
  std::array<ring::Nanoseconds, 2> shortest;
  shortest.fill(std::numeric_limits<ring::Nanoseconds>::max());
  ring::Nanoseconds spent = 0;
  for (int trial = 0; trial < kTrials && spent < kTrialTime; ++trial) {
    for (std::size_t i = 0; i < graphs.size(); ++i) {
      const ring::Nanoseconds taken = time(i + 1);
      if (taken < shortest[i] - shortest[i] / 128) trial = 0;
      shortest[i] = std::min(shortest[i], taken);
      spent += taken;
    }
  }
  return 2.0 * static_cast<double>(shortest[0]) / static_cast<double>(shortest[1]);
}

std::string TensorRtExecutor::refusal(const std::vector<Shape>& shapes) const {
  if (shared_.preprocessor != nullptr) return image_refusal(shapes.front());
  for (std::size_t i = 0; shared_.varies && i < shared_.inputs.size(); ++i) {
    const Shape row = shared_.row_of(shapes[i]);
    const Shape &smallest = shared_.smallest[i], &largest = shared_.largest[i];
    for (std::size_t axis = 0; axis < row.size(); ++axis) {
      if (row[axis] >= smallest[axis] && row[axis] <= largest[axis]) continue;
      return "input \"" + shared_.inputs[i].name + "\" of shape " + tensorrt::to_text(row) +
             " is out of the range of its plan, " + tensorrt::to_text(smallest) + " to " +
             tensorrt::to_text(largest);
    }
  }
  return {};
}

std::vector<LaneStream> TensorRtExecutor::streams() const {
  std::vector<LaneStream> streams;
  streams.reserve(lanes_.size());
  for (const auto& lane : lanes_) {
    streams.push_back({shared_.options.device, lane->stream().get()});
  }
  return streams;
}

TransferTimes TensorRtExecutor::run(const Batch& batch) {
  const cuda::CurrentDevice device(shared_.options.device);
  const TransferTimes times = lanes_[batch.lane]->run(batch);
  batches_.fetch_add(1, std::memory_order_relaxed);
  return times;
}

}  // namespace trtinfer::pipeline
