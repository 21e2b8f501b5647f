#include "bindings/notifier.hpp"

#include <memory_resource>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/errors.hpp"
#include "bindings/loop_future.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {
namespace {

struct Cookie {
  Cookie(py::object object, std::shared_ptr<const Layout> layout)
      : object(std::move(object)), layout(std::move(layout)) {}
  ~Cookie() {
    const bool dropped = with_gil([this] {
      object = py::object();
      layout.reset();
    });
    if (dropped) return;
    // Both hold Python objects, which cannot be given up without an interpreter.
    object.release();
    new std::shared_ptr(std::move(layout));
  }

  py::object object;
  std::shared_ptr<const Layout> layout;  // null: the outputs are the payload
};

}  // namespace

void NotifierHandle::set_cookie(pipeline::Request& request, py::object cookie,
                                std::shared_ptr<const Layout> layout) {
  const std::pmr::polymorphic_allocator<Cookie> within(request.memory());
  request.cookie = std::allocate_shared<Cookie>(within, std::move(cookie), std::move(layout));
}

// What came of an ended request; errors of building the outputs are errors of the request.
NotifierHandle::Ended NotifierHandle::take(pipeline::Request& request) {
  // Who holds the cookie often holds the request, too: kept, they would keep each other alive.
  const std::shared_ptr<void> held = std::move(request.cookie);
  const auto& cookie = *static_cast<const Cookie*>(held.get());
  Ended ended{cookie.object, py::none(), py::none()};
  if (request.outcome() != pipeline::Outcome::kCompleted) {
    ended.error = outcome_error(request);
  } else if (cookie.layout) {
    try {
      ended.outputs = cookie.layout->outputs(request);
    } catch (const py::error_already_set& raised) {  // out of memory: the others still come out
      ended.error = raised.value();
    }
  } else {
    ended.outputs =
        py::reinterpret_borrow<py::object>(static_cast<PyObject*>(request.payload.get()));
  }
  // A tensor on a GPU is given up here, on a thread that has the GIL, once no part is running.
  if (cookie.layout && request.units_left == 0) request.payload.reset();
  return ended;
}

py::list NotifierHandle::drain() {
  std::vector<std::shared_ptr<pipeline::Request>> requests;
  notifier_->drain(requests);
  py::list result(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Ended ended = take(*requests[i]);
    result[i] =
        py::make_tuple(std::move(ended.cookie), std::move(ended.error), std::move(ended.outputs));
  }
  return result;
}

void NotifierHandle::resolve_futures() {
  std::vector<std::shared_ptr<pipeline::Request>> requests;
  notifier_->drain(requests);
  std::optional<py::error_already_set> raised;
  for (const std::shared_ptr<pipeline::Request>& request : requests) {
    Ended ended = take(*request);
    try {
      const auto resolve = raised ? &loop_future::resolve_soon : &loop_future::resolve;
      resolve(ended.cookie, std::move(ended.outputs), std::move(ended.error));
    } catch (const py::error_already_set& error) {
      if (!raised) raised = error;
    }
  }
  if (raised) throw std::move(*raised);
}

void register_notifier(py::module_& m) {
  py::class_<NotifierHandle>(m, "Notifier")
      .def(py::init<>())
      .def_property_readonly("descriptor",
                             [](const NotifierHandle& self) { return self.get()->descriptor(); })
      .def_readwrite("wake_scheduled", &NotifierHandle::wake_scheduled)
      .def("drain", &NotifierHandle::drain)
      .def("resolve_futures", &NotifierHandle::resolve_futures)
      .def("wait",
           [](const NotifierHandle& self) {
             const std::shared_ptr<pipeline::Notifier> notifier = self.get();
             const Unlocked unlocked;
             return notifier->wait();
           })
      .def("stop", [](const NotifierHandle& self) { self.get()->stop(); });
}

}  // namespace trtinfer::bindings
