#include "pipeline/trace_log.hpp"

#include <utility>

namespace trtinfer::pipeline {

void TraceLog::add(Request& request, ring::Nanoseconds finished) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (traces_.size() == kCapacity) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    first = traces_.empty();
    traces_.push_back({request.arrival, request.launched_at.load(std::memory_order_relaxed),
                       finished, request.outcome(), request.rows,
                       request.batch_rows.load(std::memory_order_relaxed), request.error(),
                       std::move(request.context)});
  }
  if (first) changed_.wake();
}

bool TraceLog::wait() {
  for (;;) {
    const std::uint32_t seen = changed_.value();
    {
      const std::lock_guard lock(mutex_);
      if (!traces_.empty()) return true;
      if (stopped_) return false;
    }
    changed_.wait(seen);
  }
}

void TraceLog::drain(std::vector<RequestTrace>& traces) {
  traces.clear();
  const std::lock_guard lock(mutex_);
  traces.swap(traces_);
}

void TraceLog::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.wake();
}

}  // namespace trtinfer::pipeline
