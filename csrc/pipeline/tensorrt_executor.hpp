#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/device_pool.hpp"
#include "cuda/graph.hpp"
#include "cuda/host_copy.hpp"
#include "cuda/memory.hpp"
#include "cuda/stream.hpp"
#include "pipeline/executor.hpp"
#include "pipeline/host_copies.hpp"
#include "pipeline/image_transfer.hpp"
#include "pipeline/shape_graphs.hpp"
#include "preprocess/gpu.hpp"
#include "tensorrt/execution_context.hpp"

namespace trtinfer::pipeline {

struct TensorRtExecutorOptions {
  int device = 0;
  std::uint32_t lanes = 1;
  ring::Nanoseconds spin = 2'000'000;             ///< how long a wait spins before it sleeps
  bool keeps_outputs = false;                     ///< outputs stay on the GPU
  std::shared_ptr<tensorrt::RuntimeCache> cache;  ///< kernels compiled just in time; may be null
};

/// The engine of one batch size. Size 0: the model has no batch axis.
struct BucketEngine {
  std::uint32_t size = 0;
  std::shared_ptr<const tensorrt::Engine> engine;
};

/// Runs batches with TensorRT: an execution context and a CUDA graph per batch size (bucket), of an
/// engine of its own or of one for all of them; a batch is padded up to the next bucket.
/// Neighbouring slots cross in one transfer. With a recipe the units are images (H, W, 3), uint8,
/// of which only the needed window crosses. Slots should be pinned memory, or the driver stages
/// every transfer. Where rows vary in shape, a batch has rows of one shape,
/// and every shape has a graph of its own.
class TensorRtExecutor : public Executor {
 public:
  /// `engines` in ascending order of size. Captures every graph, so that the first batch of a size
  /// is as quick as the last, and takes the memory that the largest shapes need. Throws
  /// ExecutionError for a model that cannot be run, cuda::Error, tensorrt::Error.
  TensorRtExecutor(const std::vector<BucketEngine>& engines, const preprocess::Recipe* recipe,
                   std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs,
                   const TensorRtExecutorOptions& options);
  ~TensorRtExecutor() override;

  void run(const Batch& batch) override;
  std::uint64_t batch_key(const std::vector<Shape>& shapes) const override {
    return varies_ ? row_key(shapes) : 0;
  }
  std::string refusal(const std::vector<Shape>& shapes) const override;
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }
  /// Batches answered; any thread may ask.
  std::uint64_t batches() const { return batches_.load(std::memory_order_relaxed); }
  std::optional<int> gpu() const override { return options_.device; }
  std::vector<LaneStream> streams() const override;
  bool reads_device_inputs() const override { return true; }
  bool keeps_outputs() const override { return options_.keeps_outputs; }

 private:
  static constexpr std::uint32_t kMostReads = 16;  ///< blocks of host memory that a kernel reads
  static constexpr std::size_t kMostWrites = 1 << 20;  ///< bytes of outputs that a kernel writes

  struct Bucket {
    std::uint32_t size = 0;
    std::unique_ptr<tensorrt::ExecutionContext> context;
    cuda::Graph graph;        // where rows do not vary
    ShapeGraphs shapes;       // where they do
    std::uint32_t reads = 0;  // blocks of host memory that it can read by itself

    std::uint32_t rows() const { return size == 0 ? 1 : size; }
  };

  /// Memory of one input or output, which has rows of this shape now.
  struct Tensor {
    Shape row;
    std::size_t row_bytes = 0, capacity = 0;
    cuda::DeviceMemory device;
    cuda::PinnedMemory host;  // of outputs

    void set_row(ElementType type, Shape new_row);
    std::size_t bytes(std::uint32_t rows) const {
      return std::max<std::size_t>(row_bytes * rows, 1);
    }
    bool has_room(std::uint32_t rows) const { return bytes(rows) <= capacity; }
    void allocate(std::uint32_t rows);
  };

  /// One batch in flight: stream, buffers, graphs.
  struct Lane {
    cuda::Stream stream;
    cuda::HostReader reader{kMostReads};
    cuda::HostWriter writer;
    cuda::Event finished{cuda::EventKind::kBlocking}, consumed{cuda::EventKind::kBlocking};
    std::vector<Tensor> inputs, outputs;
    cuda::DeviceMemory scratch;
    std::size_t scratch_bytes = 0;
    std::unique_ptr<ImageTransfer> images;
    HostCopies copies;                          // of the batch
    const std::byte* captured_table = nullptr;  // of `images`, in all graphs
    std::vector<Bucket> buckets;

    /// Graphs hold addresses: before memory is another one.
    void forget_shapes();
  };

  void read_ranges(const tensorrt::Engine& engine);
  void open_lane(Lane& lane, const std::vector<BucketEngine>& engines) const;
  void open_bucket(Lane& lane, const BucketEngine& engine) const;
  void fit(Lane& lane, const Bucket& bucket, const std::vector<Shape>& rows) const;
  void fit_scratch(Lane& lane, const Bucket& bucket) const;
  Shape output_row(const Bucket& bucket, const TensorSpec& output) const;
  Shape row_of(const Shape& shape) const;
  static Bucket& bucket_for(Lane& lane, std::uint32_t rows);
  const cuda::Graph& graph_for(const Batch& batch, Lane& lane, Bucket& bucket);
  ShapeGraph& capture(Lane& lane, Bucket& bucket, const std::vector<Shape>& rows);
  void set_rows(Lane& lane, const ShapeGraph& graph) const;
  void place_outputs(const Batch& batch, const Lane& lane) const;
  void bind(const Lane& lane, const Bucket& bucket) const;
  void record(Lane& lane) const;
  void enqueue(const Lane& lane, const Bucket& bucket) const;
  void deliver(const Lane& lane, const Bucket& bucket) const;
  void keep_outputs(const Batch& batch, const Lane& lane) const;
  std::uint32_t most_reads(const Lane& lane, const Bucket& bucket) const;
  void send(const Batch& batch, Lane& lane) const;
  void bring_inputs(const Batch& batch, Lane& lane, const Bucket& bucket) const;
  void launch(const Batch& batch, Lane& lane, Bucket& bucket);
  void wait(const Batch& batch, const Lane& lane) const;
  static void block(const Batch& batch, const Lane& lane, bool kept);
  /// Before the lane goes on after a failure: nothing of it reads or writes any more.
  static void settle(const Lane& lane) noexcept;
  void scatter(const Batch& batch, const Lane& lane) const;

  std::unique_ptr<const preprocess::GpuPreprocessor> preprocessor_;
  std::vector<TensorSpec> inputs_, outputs_;  // of the model, without batch axis
  TensorRtExecutorOptions options_;
  bool batched_, varies_;
  std::shared_ptr<cuda::DevicePool> kept_;
  std::vector<Shape> smallest_, usual_, largest_;  // rows of the inputs
  std::vector<Lane> lanes_;
  std::mutex new_shapes_;  // TensorRT prepares one at a time, though contexts are apart
  std::atomic<std::uint64_t> batches_{0};
};

}  // namespace trtinfer::pipeline
