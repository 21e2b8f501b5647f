// Python face of pipeline::Pipeline.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <vector>

#include "bindings/claim.hpp"
#include "bindings/layout.hpp"
#include "bindings/open_loop.hpp"
#include "bindings/stats.hpp"
#include "bindings/stream.hpp"
#include "bindings/trace_log.hpp"
#include "pipeline/pipeline.hpp"

namespace trtinfer::bindings {

/// A pipeline and the layout of its tensors. Used with the GIL held; immutable.
class PipelineHandle {
 public:
  PipelineHandle(std::shared_ptr<pipeline::Pipeline> pipeline, std::shared_ptr<const Layout> layout)
      : pipeline_(std::move(pipeline)), layout_(std::move(layout)) {}

  /// None when `x` does not fit as it is; the explaining path in Python is then asked.
  pybind11::object infer(pybind11::handle x, std::optional<double> timeout, int priority);
  std::optional<PendingRequest> submit(pybind11::handle x, const Delivery& delivery);

  /// Returns the LoopFuture that is made the cookie; null when `x` does not fit as it is. A claim
  /// is published instead of being copied to one.
  pybind11::object submit_on_loop(pybind11::handle x, pybind11::handle loop, Delivery delivery);

  /// Each of `xs` is a request of its own, converted by `convert` where it does not fit as it is.
  /// Instead of the outputs of a request, or of what stands for it, there may be an exception.
  pybind11::list infer_many(const pybind11::list& xs, pybind11::handle convert,
                            std::optional<double> timeout, int priority);
  pybind11::list submit_many(const pybind11::list& xs, const pybind11::list& cookies,
                             pybind11::handle convert, Delivery delivery);

  /// A load of requests made of `xs`, converted likewise, at these times (ns from its start).
  OpenLoopHandle open_loop(const pybind11::list& xs, pybind11::handle convert,
                           const pybind11::array_t<ring::Nanoseconds>& arrivals,
                           bool waits_for_room, std::optional<double> timeout,
                           std::vector<int> priorities);

  std::unique_ptr<ClaimHandle> claim(std::uint32_t rows, bool has_batch_axis,
                                     const std::vector<pipeline::Shape>& shapes,
                                     std::optional<double> timeout);

  /// The same for values that no slot can hold.
  pybind11::object infer_object(pybind11::object inputs, std::optional<double> timeout,
                                int priority);
  PendingRequest submit_object(pybind11::object inputs, const Delivery& delivery);

  void close(bool drain);
  void trace_into(const TraceLogHandle& log) { pipeline_->trace_into(log.get()); }
  double time_batch(std::uint32_t rows, const std::vector<pipeline::Shape>& shapes);
  std::uint32_t max_batch_size() const { return pipeline_->max_batch_size(); }
  bool closed() const { return pipeline_->closed(); }
  // With the GIL: it would be wanted back in less time than it takes to hand it over.
  bool lead_briefly() { return pipeline_->lead_briefly(); }
  pybind11::dict stats() const { return stats_of(*pipeline_); }
  std::vector<StreamHandle> streams() const;

 private:
  using RequestPtr = std::shared_ptr<pipeline::Request>;

  /// Requests of many whose inputs are large, and not yet in the slots that are claimed for them.
  /// They are copied together: each by itself would give the GIL up, and wait for it again.
  struct Gathered {
    struct Entry {
      std::size_t index = 0;  // among the many
      ParsedInputs parsed;
      RequestPtr request;
      pipeline::Claim claim;
    };
    std::vector<Entry> requests;
    std::uint32_t rows = 0;
  };

  PendingRequest submit_parsed(const ParsedInputs& parsed, RequestPtr request,
                               const Delivery& delivery);
  PendingRequest watch(RequestPtr request);
  void match(pybind11::handle x, pybind11::handle convert, ParsedInputs& parsed) const;
  /// Reads one of many. False: code of others may have run for it, and before it `publish_now`.
  template <typename PublishNow>
  bool read_next(pybind11::handle x, pybind11::handle convert, ParsedInputs& parsed,
                 const PublishNow& publish_now) const;

  /// Adds a request, if its inputs are large and there is room now.
  bool gather(std::size_t index, ParsedInputs& parsed, const RequestPtr& request,
              Gathered& gathered);

  /// Fills and publishes them: `publish` returns what stands for each in the results, or raises it.
  template <typename Publish>
  void publish_gathered(Gathered& gathered, pybind11::list& results, const Publish& publish);

  /// The first of many that expire are not left for the last: a lane is told of each full batch.
  void wake_in_time(std::size_t published, std::optional<double> timeout);
  RequestPtr make_request(const ParsedInputs& parsed, std::optional<double> timeout);
  RequestPtr make_request(const ParsedInputs& parsed, const Delivery& delivery);

  /// All parts find room now, or none is published. No claim is held while waiting for another: two
  /// large requests that did would wait for each other.
  void publish_at_once(const ParsedInputs& parsed, const RequestPtr& request,
                       const Delivery& delivery);

  /// The first part waits for room until then; with `wake`, nobody leads the batch of a lone part.
  void publish_in_turn(const ParsedInputs& parsed, const RequestPtr& request,
                       ring::Nanoseconds until, int priority, bool wake);

  /// The parts of a large request wait for room, since it frees itself as they run.
  void publish_rest(const ParsedInputs& parsed, const RequestPtr& request, int priority);

  pipeline::Claim claim_part(const ParsedInputs& parsed, std::uint32_t first,
                             ring::Nanoseconds until);

  /// A refusal that is not counted.
  std::optional<pipeline::Claim> try_claim_part(const ParsedInputs& parsed, std::uint32_t first,
                                                ring::Nanoseconds until);

  /// For an event loop: it comes again off the loop if there is no room, so that is no refusal yet.
  pipeline::Claim claim_part_on_loop(const ParsedInputs& parsed, std::uint32_t first);

  pipeline::Claim claim_rows(std::uint32_t rows, const std::vector<pipeline::Shape>& shapes,
                             ring::Nanoseconds until);
  RequestPtr publish_object(pybind11::object inputs, const Delivery& delivery);

  std::shared_ptr<pipeline::Pipeline> pipeline_;
  std::shared_ptr<const Layout> layout_;
};

}  // namespace trtinfer::bindings
