// Many requests in one crossing from Python.
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/errors.hpp"
#include "bindings/notifier.hpp"
#include "bindings/pipeline.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Claim;
using pipeline::Request;
using RequestPtr = std::shared_ptr<Request>;

namespace {

/// Calls `attempt`; an exception of one request becomes a value, so that the others go on. What
/// ends a program, such as KeyboardInterrupt, is raised.
template <typename Attempt>
py::object outcome_of(const Attempt& attempt) {
  try {
    return attempt();
  } catch (...) {
    py::object error = exception_of(std::current_exception());
    if (!error || PyErr_GivenExceptionMatches(error.ptr(), PyExc_Exception) == 0) throw;
    return error;
  }
}

/// Ctrl-C must not wait for the last of many.
void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace

void PipelineHandle::match(py::handle x, py::handle convert, ParsedInputs& parsed) const {
  if (layout_->match(x, parsed)) return;
  parsed = {};
  if (!layout_->match(convert(x), parsed)) {
    raise_error("InputError", "the converted inputs do not fit the model");
  }
}

void PipelineHandle::wake_in_time(std::size_t published, std::optional<double> timeout) {
  if (timeout && (published + 1) % pipeline_->max_batch_size() == 0) pipeline_->wake();
}

std::optional<Claim> PipelineHandle::claim_large(const ParsedInputs& parsed) {
  std::size_t bytes = 0;
  for (const py::array& array : parsed.arrays) {
    if (!array) return std::nullopt;
    bytes += static_cast<std::size_t>(array.nbytes());
  }
  if (bytes < Layout::kUnlockedCopyBytes || parsed.rows > pipeline_->max_batch_size()) {
    return std::nullopt;
  }
  return try_claim_part(parsed, 0, 0);
}

template <typename Publish>
void PipelineHandle::publish_large(std::vector<Large>& large, py::list& results,
                                   const Publish& publish) {
  std::vector<pipeline::SlotFill> fills;
  for (const Large& each : large) {
    for (std::size_t i = 0; i < each.parsed.arrays.size(); ++i) {
      fills.push_back(layout_->filling(i, each.parsed, 0, each.claim));
    }
  }
  if (!fills.empty()) {
    const Unlocked unlocked;
    pipeline::fill_slots(fills);
  }
  for (Large& each : large) {
    results[each.index] = outcome_of([&]() -> py::object { return publish(each); });
  }
  large.clear();
}

py::list PipelineHandle::infer_many(const py::list& xs, py::handle convert,
                                    std::optional<double> timeout, int priority) {
  py::list results(xs.size());
  std::vector<RequestPtr> requests(xs.size());
  std::vector<Large> large;
  const auto publish_now = [&] {
    publish_large(large, results, [&](Large& each) -> py::object {
      pipeline_->publish(std::move(each.claim), each.request, 0, priority, false);
      requests[each.index] = std::move(each.request);
      return py::none();
    });
  };
  const auto take_back = [&] {
    for (const RequestPtr& request : requests) {
      if (request != nullptr) pipeline_->cancel(request);
    }
  };
  bool has_company = false;
  const auto publish_next = [&](std::size_t i) -> py::object {
    ParsedInputs parsed;
    match(xs[i], convert, parsed);
    RequestPtr request = make_request(parsed, timeout);
    if (std::optional<Claim> claim = claim_large(parsed)) {
      large.push_back({i, std::move(parsed), std::move(request), std::move(*claim)});
    } else {
      publish_now();
      // Room that its own company takes comes back as they run, as that of a large request does.
      const ring::Nanoseconds until = has_company || timeout ? request->deadline : 0;
      publish_in_turn(parsed, request, until, priority, false);
      requests[i] = std::move(request);
    }
    has_company = true;
    return py::none();
  };
  try {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      check_signals();
      results[i] = outcome_of([&]() -> py::object { return publish_next(i); });
      wake_in_time(i, timeout);
      if (large.size() < pipeline_->max_batch_size()) continue;
      publish_now();
      if (i + 1 < xs.size()) pipeline_->wake();  // for a lane, while the next ones are copied
    }
    publish_now();
    for (std::size_t i = 0; i < xs.size(); ++i) {
      if (requests[i] == nullptr) continue;
      check_signals();
      results[i] =
          outcome_of([&]() -> py::object { return wait_for(pipeline_, *layout_, requests[i]); });
      requests[i].reset();
    }
  } catch (...) {
    take_back();
    throw;
  }
  return results;
}

py::list PipelineHandle::submit_many(const py::list& xs, const py::list& cookies,
                                     py::handle convert, Delivery delivery) {
  delivery.wakes = false;
  py::list results(xs.size());
  std::vector<Large> large;
  const auto publish_now = [&] {
    publish_large(large, results, [&](Large& each) {
      pipeline_->publish(std::move(each.claim), each.request, 0, delivery.priority, false);
      return py::cast(watch(std::move(each.request)));
    });
  };
  const auto submit_next = [&](std::size_t i) -> py::object {
    ParsedInputs parsed;
    match(xs[i], convert, parsed);
    RequestPtr request = make_request(parsed, delivery);
    if (std::optional<Claim> claim = claim_large(parsed)) {
      large.push_back({i, std::move(parsed), std::move(request), std::move(*claim)});
      return py::none();
    }
    publish_now();
    return py::cast(submit_parsed(parsed, std::move(request), delivery));
  };
  for (std::size_t i = 0; i < xs.size(); ++i) {
    delivery.cookie = cookies[i];
    results[i] = outcome_of([&]() -> py::object { return submit_next(i); });
    wake_in_time(i, delivery.timeout);
    if (large.size() < pipeline_->max_batch_size()) continue;
    publish_now();
    pipeline_->wake();
  }
  publish_now();
  pipeline_->wake();
  return results;
}

}  // namespace trtinfer::bindings
