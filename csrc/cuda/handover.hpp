// Streams on which the work of other libraries is awaited.
#pragma once

#include <memory>

#include "cuda/stream.hpp"

namespace trtinfer::cuda {

// A stream of the current GPU, borrowed for as long as it takes to hand memory over: its producer
// makes the stream wait for the work that fills the memory, and an event recorded on it then says
// anywhere when that is done. Nothing is pending on the stream at first, so that no producer waits
// for another.
class HandoverStream {
 public:
  HandoverStream();   // throws Error
  ~HandoverStream();  // gives it back to the pool, which outlives every session
  HandoverStream(const HandoverStream&) = delete;
  HandoverStream& operator=(const HandoverStream&) = delete;

  const Stream& get() const noexcept { return stream_; }

  // Has it wait for all work enqueued so far on a cudaStream_t of the same GPU.
  void wait_for(void* stream) const;

  // An event at the end of what it waits for.
  std::shared_ptr<const Event> record() const;

 private:
  int device_;
  Stream stream_;
};

}  // namespace trtinfer::cuda
