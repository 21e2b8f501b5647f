// Work enqueued once and launched many times.
#pragma once

#include <memory>

#include "cuda/stream.hpp"

namespace trtinfer::cuda {

struct DestroyGraph {
  void operator()(void* graph) const noexcept;
};

// When a kernel of a graph starts: once the one before it is over, or as it was enqueued, which may
// be earlier ("programmatic dependent launch").
enum class KernelOrder { kInTurn, kAsEnqueued };

// An executable graph captured from a stream. Move-only; for one thread at a time.
class Graph {
 public:
  // Makes it a graph of what `enqueue` enqueues on the stream, which is not executed; in place, in
  // less time, where only parameters are others than before. Throws what `enqueue` throws, and
  // Error, and is as it was then.
  template <typename Enqueue>
  void capture(const Stream& stream, const Enqueue& enqueue,
               KernelOrder order = KernelOrder::kInTurn) {
    begin(stream);
    try {
      enqueue();
    } catch (...) {
      abandon(stream);
      throw;
    }
    end(stream, order);
  }

  void launch(const Stream& stream) const;

 private:
  static void begin(const Stream& stream);
  static void abandon(const Stream& stream) noexcept;
  void end(const Stream& stream, KernelOrder order);
  bool update(void* captured) const;

  std::unique_ptr<void, DestroyGraph> graph_;
};

}  // namespace trtinfer::cuda
