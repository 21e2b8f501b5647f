// Many requests in one crossing from Python.
#include <exception>
#include <utility>
#include <vector>

#include "bindings/errors.hpp"
#include "bindings/notifier.hpp"
#include "bindings/pipeline.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

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

RequestPtr PipelineHandle::publish_next(const ParsedInputs& parsed, std::optional<double> timeout,
                                        int priority, bool has_company) {
  const RequestPtr request = make_request(parsed, timeout);
  // Room that its own company takes comes back as they run, as that of a large request does.
  const ring::Nanoseconds until = has_company || timeout ? request->deadline : 0;
  publish_in_turn(parsed, request, until, priority, false);
  return request;
}

void PipelineHandle::wake_in_time(std::size_t published, std::optional<double> timeout) {
  if (timeout && (published + 1) % pipeline_->max_batch_size() == 0) pipeline_->wake();
}

py::list PipelineHandle::infer_many(const py::list& xs, py::handle convert,
                                    std::optional<double> timeout, int priority) {
  py::list results(xs.size());
  std::vector<RequestPtr> requests(xs.size());
  bool has_company = false;
  const auto take_back = [&] {
    for (const RequestPtr& request : requests) {
      if (request != nullptr) pipeline_->cancel(request);
    }
  };
  try {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      check_signals();
      results[i] = outcome_of([&]() -> py::object {
        ParsedInputs parsed;
        match(xs[i], convert, parsed);
        requests[i] = publish_next(parsed, timeout, priority, has_company);
        has_company = true;
        return py::none();
      });
      wake_in_time(i, timeout);
    }
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
  for (std::size_t i = 0; i < xs.size(); ++i) {
    delivery.cookie = cookies[i];
    results[i] = outcome_of([&]() -> py::object {
      ParsedInputs parsed;
      match(xs[i], convert, parsed);
      return py::cast(submit_parsed(parsed, delivery));
    });
    wake_in_time(i, delivery.timeout);
  }
  pipeline_->wake();
  return results;
}

}  // namespace trtinfer::bindings
