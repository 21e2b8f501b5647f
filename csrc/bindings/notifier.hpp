// Python face of pipeline::Notifier.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/layout.hpp"
#include "pipeline/notifier.hpp"

namespace trtinfer::bindings {

/// Hands ended requests to Python, each with the cookie that it was submitted with.
class NotifierHandle {
 public:
  NotifierHandle() : notifier_(std::make_shared<pipeline::Notifier>()) {}
  ~NotifierHandle() { notifier_->abandon(); }
  NotifierHandle(const NotifierHandle&) = delete;
  NotifierHandle& operator=(const NotifierHandle&) = delete;

  /// Notes in the request what `drain` needs to know of it: its cookie and how to build its
  /// outputs.
  static void set_cookie(pipeline::Request& request, pybind11::object cookie,
                         std::shared_ptr<const Layout> layout);

  /// (cookie, error or None, outputs or None) of each request that ended since the last call.
  pybind11::list drain();

  /// Resolves the LoopFutures that are the cookies of these requests; on their own loop.
  void resolve_futures();

  const std::shared_ptr<pipeline::Notifier>& get() const { return notifier_; }

  /// Of an event loop: whether its batches of this turn will be run without another word. Used on
  /// that loop.
  bool wake_scheduled = false;

 private:
  struct Ended {
    pybind11::object cookie, error, outputs;
  };
  static Ended take(pipeline::Request& request);

  const std::shared_ptr<pipeline::Notifier> notifier_;
};

}  // namespace trtinfer::bindings
