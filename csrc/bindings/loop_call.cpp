// A type written by hand, since a call is made per request and a coroutine of Python's own costs as
// much as all that the core does for it.
#include "bindings/loop_call.hpp"

#include <pybind11/critical_section.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <exception>
#include <optional>

#include "bindings/errors.hpp"
#include "bindings/handmade_type.hpp"
#include "bindings/loop_future.hpp"
#include "bindings/notifier.hpp"
#include "bindings/pipeline.hpp"
#include "bindings/register.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {
namespace {

enum class State : std::uint8_t { kNew, kStarting, kPublished, kSlow, kOver };

/// A coroutine. When it is first run, the request is published and a `LoopFuture` awaited; what the
/// core does not take as it is, or has no room for within a timeout, goes on as the coroutine that
/// `call_slowly` makes instead.
struct LoopCall {
  PyObject_HEAD State state;
  bool of_claim;    // a slot's, and not a session's
  PyObject* owner;  // null once the call is over, like all others
  LoopCaller* caller;
  PyObject *x, *timeout, *priority, *timeline;
  PyObject* awaited;  // a LoopFuture, or the slower coroutine; null before

  std::array<PyObject**, 6> held() {
    return {&owner, &x, &timeout, &priority, &timeline, &awaited};
  }
};

// Held for ever.
PyTypeObject* call_type = nullptr;

// --- The way in

std::optional<double> timeout_of(const LoopCall* call) {
  if (call->timeout == Py_None) return std::nullopt;
  const double timeout = PyFloat_AsDouble(call->timeout);
  if (timeout == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return timeout;
}

int priority_of(const LoopCall* call) {
  const long priority = PyLong_AsLong(call->priority);
  if (priority == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return static_cast<int>(std::clamp(priority, -1000L, 1000L));  // publishing refuses what is wrong
}

/// Null when the request has to go the longer way.
py::object publish(const LoopCall* call, const Loop& loop) {
  const std::optional<double> timeout = timeout_of(call);
  const py::object x = borrow(call->x);
  NotifierHandle& notifier = *loop.native;
  py::object future;
  try {
    future = call->caller->native->submit_on_loop(x, loop.loop,
                                                  {notifier.get(), {}, timeout, priority_of(call)});
  } catch (...) {
    const py::object error = exception_of(std::current_exception());
    if (!error || call->of_claim) throw;
    const bool waits = timeout && is_error(error, "QueueFullError");
    if (!waits && !is_error(error, "InputError")) throw;  // the longer way counts the latter
  }
  if (!notifier.wake_scheduled) loop.completer.attr("schedule_wake")();
  return future;
}

void start(LoopCall* call) {
  const LoopCaller* caller = call->caller;
  call->state = State::kStarting;
  const Loop loop = running_loop(call->caller);
  py::object awaited;
  if (caller->has_tensors) awaited = publish(call, loop);
  const State state = awaited ? State::kPublished : State::kSlow;
  if (!awaited) {
    const auto argument = [](PyObject* object) { return py::handle(object); };
    awaited = py::handle(caller->call_slowly)(loop.loop, argument(call->x), loop.notifier,
                                              argument(call->timeout), argument(call->priority),
                                              argument(call->timeline));
  }
  call->awaited = awaited.release().ptr();
  call->state = state;
}

// --- The protocol of coroutines

/// Another thread starts it, or `start` has come back to it; as Python says then.
bool is_starting(const LoopCall* call) {
  if (call->state != State::kStarting) return false;
  PyErr_SetString(PyExc_ValueError, "coroutine already executing");
  return true;
}

bool is_awaited(const LoopCall* call) {
  if (call->state != State::kPublished || !loop_future::has_awaiter(call->awaited)) return false;
  PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
  return true;
}

/// Whatever exception is set stays so.
void finish(LoopCall* call) {
  PyObject *kind = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&kind, &error, &traceback);
  call->state = State::kOver;
  for (PyObject** held : call->held()) Py_CLEAR(*held);
  Py_CLEAR(call->caller);
  PyErr_Restore(kind, error, traceback);
}

PySendResult send(PyObject* self, PyObject* value, PyObject** answer) {
  auto* call = as<LoopCall>(self);
  *answer = nullptr;
  if (is_starting(call) || is_awaited(call)) return PYGEN_ERROR;
  if (call->state == State::kOver) {
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return PYGEN_ERROR;
  }
  if (call->state == State::kNew) {
    if (value != Py_None) {
      PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
      return PYGEN_ERROR;
    }
    const auto started = guarded([&] {
      start(call);
      return self;
    });
    if (started == nullptr) {
      finish(call);
      return PYGEN_ERROR;
    }
  }
  PySendResult result;
  if (call->state == State::kPublished) {
    result = loop_future::send(call->awaited, answer);
    if (result == PYGEN_RETURN && call->timeline != Py_None &&
        !loop_future::note_times(call->awaited, call->timeline)) {
      Py_CLEAR(*answer);
      result = PYGEN_ERROR;
    }
  } else {
    PyObject* slow = Py_NewRef(call->awaited);  // whoever closes the call meanwhile
    result = PyIter_Send(slow, value, answer);
    Py_DECREF(slow);
  }
  if (result != PYGEN_NEXT) finish(call);
  return result;
}

PyObject* next(PyObject* self) {
  PyObject* answer = nullptr;
  const PySendResult result = send(self, Py_None, &answer);
  return yielded(result, answer);
}

PyObject* send_value(PyObject* self, PyObject* value) {
  PyObject* answer = nullptr;
  const PySendResult result = send(self, value, &answer);
  return yielded(result, answer);
}

PyObject* throw_in(PyObject* self, PyObject* arguments) {
  auto* call = as<LoopCall>(self);
  if (is_starting(call)) return nullptr;
  if (call->state == State::kSlow) {
    const auto method =
        py::reinterpret_steal<py::object>(PyObject_GetAttrString(call->awaited, "throw"));
    PyObject* answer = method ? PyObject_Call(method.ptr(), arguments, nullptr) : nullptr;
    if (answer == nullptr) finish(call);
    return answer;
  }
  PyObject *kind = nullptr, *error = nullptr, *traceback = nullptr;
  if (PyArg_UnpackTuple(arguments, "throw", 1, 3, &kind, &error, &traceback) == 0) return nullptr;
  const bool is_over = call->state == State::kOver;
  finish(call);
  if (is_over) {
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
  } else if (PyExceptionInstance_Check(kind)) {
    PyErr_SetObject(PyExceptionInstance_Class(kind), kind);
  } else if (PyExceptionClass_Check(kind)) {
    PyErr_SetObject(kind, error == nullptr ? Py_None : error);
  } else {
    PyErr_SetString(PyExc_TypeError, "an exception is needed");
  }
  return nullptr;
}

PyObject* close(PyObject* self, PyObject* /*unused*/) {
  auto* call = as<LoopCall>(self);
  if (is_starting(call)) return nullptr;
  PyObject* result = call->state == State::kSlow
                         ? PyObject_CallMethod(call->awaited, "close", nullptr)
                         : Py_NewRef(Py_None);
  finish(call);
  return result;
}

PyObject* await(PyObject* self) { return Py_NewRef(self); }

const char* full_name(const LoopCall* call) {
  return call->of_claim ? "Slot.ainfer" : "Session.ainfer";
}

PyObject* get_name(PyObject* /*self*/, void* /*unused*/) { return PyUnicode_FromString("ainfer"); }

PyObject* get_full_name(PyObject* self, void* /*unused*/) {
  return PyUnicode_FromString(full_name(as<LoopCall>(self)));
}

void finalize(PyObject* self) {
  auto* call = as<LoopCall>(self);
  if (call->state != State::kNew) return;
  PyObject *kind = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&kind, &error, &traceback);
  if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
                       full_name(call)) != 0) {
    PyErr_WriteUnraisable(self);
  }
  PyErr_Restore(kind, error, traceback);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  auto* call = as<LoopCall>(self);
  Py_VISIT(Py_TYPE(self));
  for (PyObject** held : call->held()) Py_VISIT(*held);
  Py_VISIT(call->caller);
  return 0;
}

int clear(PyObject* self) {
  finish(as<LoopCall>(self));
  return 0;
}

void deallocate(PyObject* self) {
  if (PyObject_CallFinalizerFromDealloc(self) < 0) return;
  PyObject_GC_UnTrack(self);
  finish(as<LoopCall>(self));
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

// --- The type

PyTypeObject* make_loop_call_type() {
  static PyMethodDef methods[] = {{"send", &send_value, METH_O, nullptr},
                                  {"throw", &throw_in, METH_VARARGS, nullptr},
                                  {"close", &close, METH_NOARGS, nullptr},
                                  {}};
  static PyGetSetDef properties[] = {{"__name__", &get_name, nullptr, nullptr, nullptr},
                                     {"__qualname__", &get_full_name, nullptr, nullptr, nullptr},
                                     {}};
  static PyType_Slot slots[] = {{Py_tp_dealloc, slot(&deallocate)},
                                {Py_tp_finalize, slot(&finalize)},
                                {Py_tp_traverse, slot(&traverse)},
                                {Py_tp_clear, slot(&clear)},
                                {Py_tp_methods, methods},
                                {Py_tp_getset, properties},
                                {Py_tp_iter, slot(&PyObject_SelfIter)},
                                {Py_tp_iternext, slot(&next)},
                                {Py_am_await, slot(&await)},
                                {Py_am_send, slot(&send)},
                                {}};
  static PyType_Spec spec = {"trtinfer._core.LoopCall", sizeof(LoopCall), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  return make_type(spec);
}

}  // namespace

PyObject* make_call(LoopCaller* caller, PyObject* const* arguments) {
  LoopCall* call = PyObject_GC_New(LoopCall, call_type);
  if (call == nullptr) return nullptr;
  call->state = State::kNew;
  call->of_claim = ClaimHandle::of(arguments[1]) != nullptr;
  call->owner = Py_NewRef(arguments[0]);
  call->caller = as<LoopCaller>(Py_NewRef(as<PyObject>(caller)));
  call->x = Py_NewRef(arguments[1]);
  call->timeout = Py_NewRef(arguments[2]);
  call->priority = Py_NewRef(arguments[3]);
  call->timeline = Py_NewRef(arguments[4]);
  call->awaited = nullptr;
  PyObject_GC_Track(as<PyObject>(call));
  return as<PyObject>(call);
}

void register_loop_call(py::module_& m) {
  call_type = make_loop_call_type();
  m.add_object("LoopCall", as<PyObject>(call_type));
}

}  // namespace trtinfer::bindings
