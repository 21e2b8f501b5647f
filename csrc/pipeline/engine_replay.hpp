#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cuda/graph.hpp"
#include "cuda/memory.hpp"
#include "cuda/stream.hpp"
#include "ring/futex.hpp"
#include "tensorrt/execution_context.hpp"

namespace trtinfer::pipeline {

struct EngineReplayOptions {
  int device = 0;
  std::uint32_t lanes = 1;  ///< streams that replay side by side, each with its own buffers
  bool transfers = false;   ///< the graph holds the copies from and to pinned memory, too
  cuda::KernelOrder order = cuda::KernelOrder::kInTurn;
  std::shared_ptr<tensorrt::RuntimeCache> cache;  ///< kernels compiled just in time; may be null
};

/// An engine of fixed shapes in CUDA graphs with nothing around it: the least that a batch can
/// cost, which benches compare with. For one thread at a time.
class EngineReplay {
 public:
  using Bytes = std::span<const std::byte>;

  /// `inputs` in the engine's order. Throws ExecutionError when they do not fit, cuda::Error and
  /// tensorrt::Error.
  EngineReplay(const std::shared_ptr<const tensorrt::Engine>& engine,
               const std::vector<Bytes>& inputs, const EngineReplayOptions& options);
  ~EngineReplay();

  /// Times of so many replays on one lane, each from its launch to its end as the CPU sees it.
  std::vector<ring::Nanoseconds> time_alone(std::uint32_t replays) const;

  /// Time of so many replays together, back to back on every lane.
  ring::Nanoseconds time_saturated(std::uint32_t replays) const;

  /// What the last replay on the first lane wrote, in the engine's order.
  std::vector<Bytes> outputs() const;

 private:
  struct Tensor {
    bool is_input = false;
    std::size_t bytes = 0;
    cuda::DeviceMemory device;
    cuda::PinnedMemory host;
  };

  struct Lane {
    cuda::Stream stream;
    cuda::Event finished;
    std::vector<Tensor> tensors;
    std::unique_ptr<tensorrt::ExecutionContext> context;
    cuda::Graph graph;
  };

  void open_lane(Lane& lane, const std::shared_ptr<const tensorrt::Engine>& engine,
                 const std::vector<Bytes>& inputs) const;
  static void copy(const Lane& lane, bool inputs);

  EngineReplayOptions options_;
  std::vector<Lane> lanes_;
};

}  // namespace trtinfer::pipeline
