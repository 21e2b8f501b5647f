#include "bindings/trace_log.hpp"

#include <chrono>
#include <utility>

#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Outcome;
using pipeline::RequestTrace;
using ring::Nanoseconds;

namespace {

const char* name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::kPending:
      break;
    case Outcome::kCompleted:
      return "completed";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kExpired:
      return "expired";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kClosed:
      return "closed";
  }
  return "pending";
}

/// What is to be added to a time of ours for nanoseconds since 1970.
Nanoseconds since_epoch() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count() - ring::now();
}

py::object context_of(const RequestTrace& trace) {
  if (trace.context != nullptr) {
    return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(trace.context.get()));
  }
  auto empty = py::reinterpret_steal<py::object>(PyContext_New());
  if (!empty) throw py::error_already_set();
  return empty;
}

py::tuple fields_of(const RequestTrace& trace, Nanoseconds offset) {
  const py::object launched =
      trace.launched == 0 ? py::object(py::none()) : py::object(py::int_(trace.launched + offset));
  return py::make_tuple(trace.arrival + offset, launched, trace.finished + offset,
                        name_of(trace.outcome), trace.rows, trace.batch_rows, trace.error,
                        context_of(trace));
}

}  // namespace

void keep_context(const pipeline::Pipeline& pipeline, pipeline::Request& request) {
  if (!pipeline.traces()) return;
  auto context = py::reinterpret_steal<py::object>(PyContext_CopyCurrent());
  if (!context) throw py::error_already_set();
  request.context = hold(std::move(context));
}

py::list TraceLogHandle::drain() {
  log_->drain(traces_);
  const Nanoseconds offset = since_epoch();
  py::list result(traces_.size());
  for (std::size_t i = 0; i < traces_.size(); ++i) result[i] = fields_of(traces_[i], offset);
  traces_.clear();
  return result;
}

void register_trace_log(py::module_& m) {
  py::class_<TraceLogHandle>(m, "TraceLog")
      .def(py::init<>())
      .def("wait",
           [](const TraceLogHandle& self) {
             const std::shared_ptr<pipeline::TraceLog> log = self.get();
             const Unlocked unlocked;
             return log->wait();
           })
      .def("drain", &TraceLogHandle::drain)
      .def("stop", [](const TraceLogHandle& self) { self.get()->stop(); })
      .def_property_readonly("dropped",
                             [](const TraceLogHandle& self) { return self.get()->dropped(); });
}

}  // namespace trtinfer::bindings
