#include "pipeline/reaper.hpp"

#include <algorithm>
#include <chrono>

#include "pipeline/own_thread.hpp"

namespace trtinfer::pipeline {

void Reaper::watch(const std::shared_ptr<Request>& request) {
  std::vector<std::shared_ptr<Request>> dropped;  // without the lock: what they hold may call back
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  const bool earliest = entries_.empty() || request->deadline < entries_.front().deadline;
  if (entries_.size() >= prune_at_) prune(dropped);
  entries_.push_back({request->deadline, request});
  std::push_heap(entries_.begin(), entries_.end(), std::greater<>());
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  if (earliest) changed_.notify_one();
}

void Reaper::prune(std::vector<std::shared_ptr<Request>>& dropped) {
  std::erase_if(entries_, [&dropped](const Entry& entry) {
    dropped.push_back(entry.request.lock());
    return dropped.back() == nullptr || dropped.back()->done();
  });
  std::make_heap(entries_.begin(), entries_.end(), std::greater<>());
  prune_at_ = std::max<std::size_t>(1024, 2 * entries_.size());
}

void Reaper::loop() {
  mark_own_thread();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (entries_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const ring::Nanoseconds deadline = entries_.front().deadline;
    // Looked at only when its time has come: a request must not live on because it had a deadline.
    if (ring::now() < deadline) {
      changed_.wait_until(
          lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(deadline)));
      continue;
    }
    std::shared_ptr<Request> request = entries_.front().request.lock();
    std::pop_heap(entries_.begin(), entries_.end(), std::greater<>());
    entries_.pop_back();
    lock.unlock();
    if (request != nullptr && !request->done()) expire_(request);
    request.reset();  // may be the last to hold it, and what it holds may call back
    lock.lock();
  }
}

void Reaper::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

}  // namespace trtinfer::pipeline
