#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pipeline/executor.hpp"
#include "pipeline/tensorrt_lane.hpp"
#include "pipeline/tensorrt_shared.hpp"

namespace trtinfer::pipeline {

/// Runs batches with TensorRT: an execution context and a CUDA graph per batch size (bucket), of an
/// engine of its own or of one for all of them; a batch is padded up to the next bucket.
/// Neighbouring slots cross in one transfer. With a recipe the units are images (H, W, 3), uint8,
/// of which only the needed window crosses. Slots should be pinned memory, or the driver stages
/// every transfer. Where rows vary in shape, a batch has rows of one shape,
/// and every shape has a graph of its own; else batches that each keep the GPU busy take turns.
class TensorRtExecutor : public Executor {
 public:
  /// `engines` in ascending order of size. Captures every graph, so that the first batch of a size
  /// is as quick as the last, and takes the memory that the largest shapes need. Throws
  /// ExecutionError for a model that cannot be run, cuda::Error, tensorrt::Error.
  TensorRtExecutor(const std::vector<BucketEngine>& engines, const preprocess::Recipe* recipe,
                   std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs,
                   const TensorRtExecutorOptions& options);
  ~TensorRtExecutor() override;

  TransferTimes run(const Batch& batch) override;
  std::uint64_t batch_key(const std::vector<Shape>& shapes) const override {
    return shared_.varies ? row_key(shapes) : 0;
  }
  std::string refusal(const std::vector<Shape>& shapes) const override;
  const std::vector<TensorSpec>& outputs() const override { return shared_.outputs; }
  /// Batches answered; any thread may ask.
  std::uint64_t batches() const { return batches_.load(std::memory_order_relaxed); }
  std::optional<int> gpu() const override { return shared_.options.device; }
  std::vector<LaneStream> streams() const override;
  bool reads_device_inputs() const override { return true; }
  bool keeps_outputs() const override { return shared_.options.keeps_outputs; }

 private:
  void read_ranges(const tensorrt::Engine& engine);
  /// For each of so many buckets, from trial runs.
  void choose_turns(std::size_t buckets);
  double gain_side_by_side(std::size_t bucket) const;

  TensorRtShared shared_;
  std::vector<std::unique_ptr<TensorRtLane>> lanes_;
  std::atomic<std::uint64_t> batches_{0};
};

}  // namespace trtinfer::pipeline
