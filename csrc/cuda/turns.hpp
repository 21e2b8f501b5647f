// Work on a GPU that must not run beside other such work of this process, in whichever stream.
#pragma once

#include <memory>
#include <mutex>

#include "cuda/stream.hpp"

namespace trtinfer::cuda {

// One after another, in the order in which they are enqueued. What is enqueued outside, such as
// transfers, overlaps. Thread-safe.
class Turns {
 public:
  static Turns& of(int device);

  // Runs `enqueue`, which enqueues work on the stream, to start when all earlier work is over.
  // `done` is the stream's own event: it is recorded then. Throws what `enqueue` throws, and Error.
  template <typename Enqueue>
  void take(const Stream& stream, const std::shared_ptr<const Event>& done,
            const Enqueue& enqueue) {
    const std::lock_guard lock(mutex_);
    if (last_ != nullptr && last_ != done) stream.wait(*last_);
    enqueue();
    done->record(stream);
    last_ = done;
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<const Event> last_;
};

}  // namespace trtinfer::cuda
