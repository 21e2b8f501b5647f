// Many requests in one crossing from Python.
#include <algorithm>
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

/// Whether it is read without any code of others: while room is claimed for some of many requests,
/// none runs, which might wait for such room itself, or change an array that is yet to be copied.
bool is_plain(py::handle x) {
  if (py::isinstance<py::array>(x)) return true;
  if (PyDict_CheckExact(x.ptr()) == 0) return false;
  const auto values = py::reinterpret_steal<py::list>(PyDict_Values(x.ptr()));
  return std::all_of(values.begin(), values.end(),
                     [](py::handle value) { return py::isinstance<py::array>(value); });
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

template <typename PublishNow>
bool PipelineHandle::read_next(py::handle x, py::handle convert, ParsedInputs& parsed,
                               const PublishNow& publish_now) const {
  if (is_plain(x) && layout_->match(x, parsed)) return true;
  parsed = {};
  publish_now();
  match(x, convert, parsed);
  return false;
}

bool PipelineHandle::gather(std::size_t index, ParsedInputs& parsed, const RequestPtr& request,
                            Gathered& gathered) {
  std::size_t bytes = 0;
  for (const py::array& array : parsed.arrays) bytes += static_cast<std::size_t>(array.nbytes());
  if (bytes < Layout::kUnlockedCopyBytes || parsed.rows > pipeline_->max_batch_size()) return false;
  std::optional<Claim> claim = try_claim_part(parsed, 0, 0);
  if (!claim) return false;
  gathered.rows += parsed.rows;
  gathered.requests.push_back({index, std::move(parsed), request, std::move(*claim)});
  return true;
}

template <typename Publish>
void PipelineHandle::publish_gathered(Gathered& gathered, py::list& results,
                                      const Publish& publish) {
  if (gathered.requests.empty()) return;
  std::vector<pipeline::SlotFill> fills;
  for (const Gathered::Entry& each : gathered.requests) {
    for (std::size_t i = 0; i < each.parsed.arrays.size(); ++i) {
      fills.push_back(layout_->filling(i, each.parsed, 0, each.claim));
    }
  }
  {
    const Unlocked unlocked;
    pipeline::fill_slots(fills);
  }
  for (Gathered::Entry& each : gathered.requests) {
    results[each.index] = outcome_of([&]() -> py::object { return publish(each); });
  }
  gathered = {};
}

py::list PipelineHandle::infer_many(const py::list& xs, py::handle convert,
                                    std::optional<double> timeout, int priority) {
  py::list results(xs.size());
  std::vector<RequestPtr> requests(xs.size());
  Gathered gathered;
  bool has_company = false;
  const auto publish_now = [&] {
    publish_gathered(gathered, results, [&](Gathered::Entry& each) -> py::object {
      pipeline_->publish(std::move(each.claim), each.request, 0, priority, false);
      requests[each.index] = std::move(each.request);
      has_company = true;
      return py::none();
    });
  };
  const auto publish_next = [&](std::size_t i) -> py::object {
    ParsedInputs parsed;
    const bool plain = read_next(xs[i], convert, parsed, publish_now);
    RequestPtr request = make_request(parsed, timeout);
    if (plain && gather(i, parsed, request, gathered)) return py::none();
    publish_now();
    // Room that its own company takes comes back as they run, as that of a large request does.
    const ring::Nanoseconds until = has_company || timeout ? request->deadline : 0;
    publish_in_turn(parsed, request, until, priority, false);
    requests[i] = std::move(request);
    has_company = true;
    return py::none();
  };
  const auto take_back = [&] {
    for (const RequestPtr& request : requests) {
      if (request != nullptr) pipeline_->cancel(request);
    }
  };
  try {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      check_signals();
      results[i] = outcome_of([&]() -> py::object { return publish_next(i); });
      wake_in_time(i, timeout);
      if (gathered.rows < pipeline_->max_batch_size()) continue;
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
  Gathered gathered;
  const auto publish_now = [&] {
    publish_gathered(gathered, results, [&](Gathered::Entry& each) {
      pipeline_->publish(std::move(each.claim), each.request, 0, delivery.priority, false);
      return py::cast(watch(std::move(each.request)));
    });
  };
  const auto submit_next = [&](std::size_t i) -> py::object {
    ParsedInputs parsed;
    const bool plain = read_next(xs[i], convert, parsed, publish_now);
    RequestPtr request = make_request(parsed, delivery);
    if (plain && gather(i, parsed, request, gathered)) return py::none();
    publish_now();
    return py::cast(submit_parsed(parsed, std::move(request), delivery));
  };
  for (std::size_t i = 0; i < xs.size(); ++i) {
    delivery.cookie = cookies[i];
    results[i] = outcome_of([&]() -> py::object { return submit_next(i); });
    wake_in_time(i, delivery.timeout);
    if (gathered.rows < pipeline_->max_batch_size()) continue;
    publish_now();
    pipeline_->wake();
  }
  publish_now();
  pipeline_->wake();
  return results;
}

}  // namespace trtinfer::bindings
