// Work of several streams that runs one after another.
#pragma once

#include <mutex>

#include "cuda/stream.hpp"

namespace trtinfer::cuda {

// In the order in which it is enqueued; what is enqueued outside, such as transfers, overlaps.
// Thread-safe. Events that had a turn live until the last turn of all.
class Turns {
 public:
  // Runs `enqueue`, which enqueues work on the stream: it starts when all earlier work is over.
  // `done`, the stream's own event, is recorded behind it. Throws what `enqueue` throws, and Error;
  // later work then waits for what had its turn before.
  template <typename Enqueue>
  void take(const Stream& stream, const Event& done, const Enqueue& enqueue) {
    const std::lock_guard lock(mutex_);
    if (last_ != nullptr && last_ != &done) stream.wait(*last_);
    enqueue();
    done.record(stream);
    last_ = &done;
  }

 private:
  std::mutex mutex_;
  const Event* last_ = nullptr;
};

}  // namespace trtinfer::cuda
