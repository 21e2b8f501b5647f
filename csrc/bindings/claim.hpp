// Requests and claims that Python holds on to.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <optional>

#include "bindings/layout.hpp"
#include "pipeline/notifier.hpp"
#include "pipeline/pipeline.hpp"

namespace trtinfer::bindings {

/// When a request that arrived then has to be answered; a timeout is in seconds.
ring::Nanoseconds deadline_from(ring::Nanoseconds arrival, std::optional<double> timeout);

/// Waits without the GIL for a request's end; returns its outputs, or raises what ended it.
pybind11::dict wait_for(const std::shared_ptr<pipeline::Pipeline>& pipeline, const Layout& layout,
                        const std::shared_ptr<pipeline::Request>& request);

/// A request that Python holds on to while it is under way.
struct PendingRequest {
  std::shared_ptr<pipeline::Pipeline> pipeline;
  std::shared_ptr<pipeline::Request> request;

  bool cancel() const { return pipeline->cancel(request); }
  bool running() const { return request->launched && !request->done(); }
};

/// What publishing needs beside the inputs. Without a notifier the caller waits for the answer.
struct Delivery {
  std::shared_ptr<pipeline::Notifier> notifier;
  pybind11::object cookie;
  std::optional<double> timeout;
  int priority = 0;
  bool on_loop = false;  ///< from an event loop: never wait for room
  bool wakes = true;     ///< whether a lane is told at once; else the caller tells it of many
};

/// A claimed unit in Python's hands. Used with the GIL held. However many threads publish or
/// release it at once, one does.
class ClaimHandle {
 public:
  ClaimHandle(std::shared_ptr<pipeline::Pipeline> pipeline, std::shared_ptr<const Layout> layout,
              pipeline::Claim claim, bool has_batch_axis)
      : pipeline_(std::move(pipeline)),
        layout_(std::move(layout)),
        has_batch_axis_(has_batch_axis),
        claim_(std::move(claim)) {}

  /// Not while another thread publishes or releases it.
  pybind11::dict inputs() const;

  PendingRequest submit(const Delivery& delivery);
  pybind11::dict infer(const Delivery& delivery);
  void release();
  bool held() const;

  /// The claim that a Python object is, or null; asked of every request of an event loop.
  static ClaimHandle* of(pybind11::handle object);

 private:
  std::shared_ptr<pipeline::Request> publish(const Delivery& delivery);

  std::shared_ptr<pipeline::Pipeline> pipeline_;
  std::shared_ptr<const Layout> layout_;
  const bool has_batch_axis_;
  mutable std::mutex mutex_;  // never held while Python code may run
  pipeline::Claim claim_;
};

}  // namespace trtinfer::bindings
