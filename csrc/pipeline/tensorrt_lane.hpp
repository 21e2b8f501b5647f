#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/graph.hpp"
#include "cuda/host_copy.hpp"
#include "cuda/stream.hpp"
#include "pipeline/executor.hpp"
#include "pipeline/host_copies.hpp"
#include "pipeline/image_transfer.hpp"
#include "pipeline/lane_tensors.hpp"
#include "pipeline/shape_graphs.hpp"
#include "pipeline/tensorrt_shared.hpp"
#include "tensorrt/execution_context.hpp"

namespace trtinfer::pipeline {

/// The engine of one batch size. Size 0: the model has no batch axis.
struct BucketEngine {
  std::uint32_t size = 0;
  std::shared_ptr<const tensorrt::Engine> engine;
};

/// One batch in flight: stream, buffers, and for each batch size (bucket) an execution context and
/// graphs. For one thread at a time, on the current device. Buckets are counted as their engines.
class TensorRtLane {
 public:
  /// Takes the memory that the largest shapes need and runs every engine once; record() comes next.
  /// Throws ExecutionError for a model that cannot be run, cuda::Error, tensorrt::Error.
  TensorRtLane(const TensorRtShared& shared, const std::vector<BucketEngine>& engines);
  TensorRtLane(const TensorRtLane&) = delete;
  TensorRtLane& operator=(const TensorRtLane&) = delete;

  const cuda::Stream& stream() const { return stream_; }

  /// Rows of the outputs for the inputs' present ones.
  std::vector<Shape> output_rows() const { return tensors_.output_rows(); }

  /// A bucket's engine with nothing around it.
  cuda::Graph capture_engine(std::size_t bucket) const;

  /// Has the bucket's batches run in turn with those of other lanes; before record().
  void take_turns(std::size_t bucket) { buckets_[bucket].in_turn = true; }

  /// Captures the graphs of all buckets, where rows do not vary.
  void record();

  /// Throws as Executor::run, and cuda::Error and tensorrt::Error; nothing is under way then.
  TransferTimes run(const Batch& batch);

 private:
  static constexpr std::uint32_t kMostReads = 16;  ///< blocks of host memory that a kernel reads

  struct Bucket {
    std::uint32_t rows = 1;
    std::unique_ptr<tensorrt::ExecutionContext> context;
    cuda::Graph graph;        // where rows do not vary
    ShapeGraphs shapes;       // where they do
    std::uint32_t reads = 0;  // blocks of host memory that it can read by itself
    bool in_turn = false;     // with other lanes, since one alone keeps the GPU busy
  };

  void open_bucket(const BucketEngine& engine);
  Bucket& bucket_for(std::uint32_t rows);
  std::uint32_t most_reads(const Bucket& bucket) const;
  void enqueue(const Bucket& bucket) const;
  void preprocess(const Bucket& bucket) const;
  const cuda::Graph& graph_for(const Batch& batch, Bucket& bucket);
  ShapeGraph& capture(Bucket& bucket, const std::vector<Shape>& rows);
  void send(const Batch& batch);
  void bring_inputs(const Batch& batch, const Bucket& bucket);
  void launch(const Batch& batch, Bucket& bucket);
  void wait(const Batch& batch) const;
  TransferTimes transfer_times() const;
  void block(const Batch& batch, bool kept) const;
  /// Before the lane goes on after a failure: nothing of it reads or writes any more.
  void settle() const noexcept;

  const TensorRtShared& shared_;
  cuda::Stream stream_;
  cuda::HostWriter writer_;
  cuda::HostReader reader_{kMostReads, writer_};
  cuda::Event crossing_{cuda::EventKind::kTimed}, crossed_{cuda::EventKind::kTimed};
  bool by_engines_ = false;  // whether inputs of the batch cross between these two
  cuda::Event finished_{cuda::EventKind::kBlocking}, consumed_{cuda::EventKind::kBlocking};
  cuda::Event computed_;  // of a batch in turn
  LaneTensors tensors_;
  std::unique_ptr<ImageTransfer> images_;
  HostCopies copies_;                          // of the batch
  const std::byte* captured_table_ = nullptr;  // of `images_`, in all graphs
  std::vector<Bucket> buckets_;
};

}  // namespace trtinfer::pipeline
