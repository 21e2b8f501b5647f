#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "pipeline/request.hpp"

namespace trtinfer::pipeline {

/// Calls `expire` for requests whose deadline passes before they end. Its thread starts with the
/// first deadline, so that sessions without timeouts have none. Thread-safe.
class Reaper {
 public:
  using Expire = std::function<void(const std::shared_ptr<Request>&)>;

  explicit Reaper(Expire expire) : expire_(std::move(expire)) {}
  ~Reaper() { stop(); }

  void watch(const std::shared_ptr<Request>& request);

  /// Ends the thread; deadlines still watched are forgotten.
  void stop();

 private:
  struct Entry {
    ring::Nanoseconds deadline;
    std::weak_ptr<Request> request;
    bool operator>(const Entry& other) const { return deadline > other.deadline; }
  };

  void loop();
  void prune(std::vector<std::shared_ptr<Request>>& dropped);

  Expire expire_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Entry> entries_;   // a heap, the earliest deadline first
  std::size_t prune_at_ = 1024;  // entries of requests that ended early are dropped at this size
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trtinfer::pipeline
