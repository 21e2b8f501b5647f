#include "bindings/notifier.hpp"

#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {
namespace {

struct Cookie {
  py::object object;
  std::shared_ptr<const Layout> layout;  // null: the outputs are the payload
};

}  // namespace

std::shared_ptr<void> NotifierHandle::make_cookie(py::object cookie,
                                                  std::shared_ptr<const Layout> layout) {
  return {new Cookie{std::move(cookie), std::move(layout)}, [](void* held) {
            if (Py_IsInitialized() == 0) return;
            const py::gil_scoped_acquire locked;
            delete static_cast<Cookie*>(held);
          }};
}

py::list NotifierHandle::drain() {
  notifier_->drain(ended_);
  py::list result(ended_.size());
  for (std::size_t i = 0; i < ended_.size(); ++i) {
    pipeline::Request& request = *ended_[i];
    // Who holds the cookie often holds the request, too: kept, they would keep each other alive.
    const std::shared_ptr<void> held = std::move(request.cookie);
    const auto& cookie = *static_cast<const Cookie*>(held.get());
    py::object error = py::none(), outputs = py::none();
    if (request.outcome() != pipeline::Outcome::kCompleted) {
      error = outcome_error(request);
    } else if (cookie.layout) {
      try {
        outputs = cookie.layout->outputs(request);
      } catch (const py::error_already_set& raised) {  // out of memory: the others still come out
        error = raised.value();
      }
    } else {
      outputs = py::reinterpret_borrow<py::object>(static_cast<PyObject*>(request.payload.get()));
    }
    result[i] = py::make_tuple(cookie.object, std::move(error), std::move(outputs));
  }
  ended_.clear();
  return result;
}

void register_notifier(py::module_& m) {
  py::class_<NotifierHandle>(m, "Notifier")
      .def(py::init<>())
      .def_property_readonly("descriptor",
                             [](const NotifierHandle& self) { return self.get()->descriptor(); })
      .def("drain", &NotifierHandle::drain)
      .def("wait",
           [](const NotifierHandle& self) {
             const std::shared_ptr<pipeline::Notifier> notifier = self.get();
             const Unlocked unlocked;
             return notifier->wait();
           })
      .def("stop", [](const NotifierHandle& self) { self.get()->stop(); });
}

}  // namespace trtinfer::bindings
