#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/memory.hpp"
#include "cuda/stream.hpp"
#include "pipeline/executor.hpp"
#include "pipeline/image_transfer.hpp"
#include "preprocess/gpu.hpp"
#include "tensorrt/execution_context.hpp"

namespace trtinfer::pipeline {

struct TensorRtExecutorOptions {
  int device = 0;
  std::uint32_t lanes = 1;
  ring::Nanoseconds spin = 2'000'000;             ///< how long a wait spins before it sleeps
  std::shared_ptr<tensorrt::RuntimeCache> cache;  ///< kernels compiled just in time; may be null
};

/// The engine of one batch size. Size 0: the model has no batch axis.
struct BucketEngine {
  std::uint32_t size = 0;
  std::shared_ptr<const tensorrt::Engine> engine;
};

/// Runs batches with TensorRT: an engine, an execution context and a CUDA graph per batch size
/// (bucket); a batch is padded up to the next bucket. Neighbouring slots cross in one transfer.
/// With a recipe the units are images (H, W, 3), uint8, of which only the needed window
/// crosses. Slots should be pinned memory, or the driver stages every transfer.
class TensorRtExecutor : public Executor {
 public:
  /// `engines` in ascending order of size. Captures every graph, so that the first batch of a size
  /// is as quick as the last. Throws ExecutionError, cuda::Error, tensorrt::Error.
  TensorRtExecutor(const std::vector<BucketEngine>& engines, const preprocess::Recipe* recipe,
                   std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs,
                   const TensorRtExecutorOptions& options);
  ~TensorRtExecutor() override;

  void run(const Batch& batch) override;
  std::uint64_t batch_key(const std::vector<Shape>&) const override { return 0; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }
  bool wants_pinned_memory() const override { return true; }

 private:
  struct Bucket {
    std::uint32_t size = 0;
    std::unique_ptr<tensorrt::ExecutionContext> context;
    cuda::Graph graph;

    std::uint32_t rows() const { return size == 0 ? 1 : size; }
  };

  /// One batch in flight: stream, buffers, graphs.
  struct Lane {
    cuda::Stream stream;
    cuda::Event finished, finished_blocking{true};
    std::vector<cuda::DeviceMemory> inputs, outputs;
    std::vector<cuda::PinnedMemory> host_outputs;
    cuda::DeviceMemory scratch;
    std::unique_ptr<ImageTransfer> images;
    const std::byte* captured_table = nullptr;  // of `images`, in all graphs
    std::vector<Bucket> buckets;
  };

  void open_lane(Lane& lane, const std::vector<BucketEngine>& engines) const;
  void bind(const Lane& lane, const Bucket& bucket) const;
  void record(Lane& lane) const;
  void enqueue(const Lane& lane, const Bucket& bucket) const;
  void send(const Batch& batch, const Lane& lane) const;
  void wait(const Lane& lane) const;
  void scatter(const Batch& batch, const Lane& lane) const;

  std::unique_ptr<const preprocess::GpuPreprocessor> preprocessor_;
  std::vector<TensorSpec> inputs_, outputs_;  // of the model, without batch axis
  TensorRtExecutorOptions options_;
  std::vector<Lane> lanes_;
};

}  // namespace trtinfer::pipeline
