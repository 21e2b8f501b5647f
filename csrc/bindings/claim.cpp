#include "bindings/claim.hpp"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/errors.hpp"
#include "bindings/notifier.hpp"
#include "bindings/register.hpp"
#include "bindings/trace_log.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Outcome;
using pipeline::Pipeline;
using pipeline::Request;
using ring::kNever;
using ring::Nanoseconds;

Nanoseconds deadline_from(Nanoseconds arrival, std::optional<double> timeout) {
  if (!timeout) return kNever;
  const double limit = static_cast<double>(kNever - arrival) * 1e-9;
  if (*timeout >= limit) return kNever;
  // In this order no number is 0, too.
  return arrival + static_cast<Nanoseconds>(std::max(0.0, *timeout) * 1e9);
}

namespace {

// Held for ever.
PyTypeObject* claim_type = nullptr;

// How long Ctrl-C may have to wait.
constexpr Nanoseconds kSignalPeriod = 100'000'000;

bool wait_a_while(Pipeline& pipeline, const std::shared_ptr<Request>& request) {
  const Unlocked unlocked;
#ifndef Py_GIL_DISABLED
  pipeline.turnstile().come_in();
#endif
  const bool ended = pipeline.wait(request, ring::now() + kSignalPeriod);
#ifndef Py_GIL_DISABLED
  pipeline.turnstile().go_out();
#endif
  return ended;
}

[[noreturn]] void raise_not_held() {
  raise_error("InputError", "the slot was already published or released: claim another one");
}

}  // namespace

py::dict wait_for(const std::shared_ptr<Pipeline>& pipeline, const Layout& layout,
                  const std::shared_ptr<Request>& request) {
  while (!wait_a_while(*pipeline, request)) {
    if (PyErr_CheckSignals() == 0) continue;
    pipeline->cancel(request);
    throw py::error_already_set();
  }
  if (request->outcome() != Outcome::kCompleted) {
    set_error(outcome_error(*request));
    throw py::error_already_set();
  }
  return layout.outputs(*request);
}

py::dict ClaimHandle::inputs() const {
  if (!held()) raise_not_held();
  return layout_->views(pipeline_, claim_, has_batch_axis_);
}

PendingRequest ClaimHandle::submit(const Delivery& delivery) {
  const std::shared_ptr<Request> request = publish(delivery);
  if (request->deadline != kNever) pipeline_->watch_deadline(request);
  return {pipeline_, request};
}

py::dict ClaimHandle::infer(const Delivery& delivery) {
  const std::shared_ptr<Request> request = publish(delivery);
  return wait_for(pipeline_, *layout_, request);
}

ClaimHandle* ClaimHandle::of(py::handle object) {
  return Py_TYPE(object.ptr()) == claim_type ? object.cast<ClaimHandle*>() : nullptr;
}

bool ClaimHandle::held() const {
  const std::lock_guard lock(mutex_);
  return claim_.held();
}

void ClaimHandle::release() {
  const std::lock_guard lock(mutex_);
  claim_.release();
}

std::shared_ptr<Request> ClaimHandle::publish(const Delivery& delivery) {
  auto request = pipeline_->make_request(claim_.rows(), has_batch_axis_);
  keep_context(*pipeline_, *request);
  request->deadline = deadline_from(request->arrival, delivery.timeout);
  request->notifier = delivery.notifier;
  if (delivery.notifier) {
    NotifierHandle::set_cookie(*request, delivery.cookie, layout_);
  }
  {
    const std::lock_guard lock(mutex_);
    if (claim_.held()) {
      pipeline_->publish(std::move(claim_), request, 0, delivery.priority, delivery.wakes);
      return request;
    }
  }
  raise_not_held();
}

void register_claim(py::module_& m) {
  py::class_<PendingRequest>(m, "PendingRequest")
      .def("cancel", &PendingRequest::cancel)
      .def_property_readonly("running", &PendingRequest::running);

  py::class_<ClaimHandle> claim(m, "Claim");
  claim_type = reinterpret_cast<PyTypeObject*>(claim.inc_ref().ptr());
  claim.def_property_readonly("inputs", &ClaimHandle::inputs)
      .def_property_readonly("held", &ClaimHandle::held)
      .def("release", &ClaimHandle::release)
      .def(
          "submit",
          [](ClaimHandle& self, const NotifierHandle& notifier, py::object cookie,
             std::optional<double> timeout, int priority) {
            return self.submit({notifier.get(), std::move(cookie), timeout, priority});
          },
          py::arg("notifier"), py::arg("cookie"), py::arg("timeout") = py::none(),
          py::arg("priority") = 0)
      .def(
          "infer",
          [](ClaimHandle& self, std::optional<double> timeout, int priority) {
            return self.infer({nullptr, py::none(), timeout, priority, false, false});
          },
          py::arg("timeout") = py::none(), py::arg("priority") = 0);
}

}  // namespace trtinfer::bindings
