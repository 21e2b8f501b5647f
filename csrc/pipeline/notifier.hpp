#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "pipeline/request.hpp"

namespace trtinfer::pipeline {

/// Tells one event loop or completion thread that requests have ended: an eventfd that becomes
/// readable once per batch, however many requests the batch held. Thread-safe.
class Notifier {
 public:
  Notifier();
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  /// Adds an ended request; the reader is not told before `signal`.
  void add(std::shared_ptr<Request> request);

  /// Makes the descriptor readable if requests were added since the last `drain`.
  void signal();

  /// Takes all ended requests, in order of completion, into `requests` (emptied first).
  void drain(std::vector<std::shared_ptr<Request>>& requests);

  /// Sleeps until the descriptor is readable; false once `stop` was called and nothing is left.
  bool wait();

  /// Ends `wait`.
  void stop();

  /// Forgets what has ended and what will: the reader is gone. Requests hold their notifier, so
  /// what it kept would keep it alive.
  void abandon();

  int descriptor() const { return descriptor_; }

 private:
  void write_descriptor();

  const int descriptor_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Request>> ended_;
  bool signalled_ = false;
  bool stopped_ = false, abandoned_ = false;
};

}  // namespace trtinfer::pipeline
