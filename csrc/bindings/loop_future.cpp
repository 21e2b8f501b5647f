#include "bindings/loop_future.hpp"

#include <pybind11/critical_section.h>

#include <new>
#include <utility>

#include "bindings/handmade_type.hpp"
#include "bindings/register.hpp"

namespace py = pybind11;

namespace trtinfer::bindings::loop_future {
namespace {

enum class State : std::uint8_t { kPending, kDone, kFailed, kCancelled };

/// When a request arrived, was launched and was finished; 0: it was not.
struct Times {
  ring::Nanoseconds arrival = 0, launched = 0, finished = 0;

  Times() = default;
  explicit Times(const pipeline::Request& request)
      : arrival(request.arrival),
        launched(request.launched_at.load(std::memory_order_relaxed)),
        finished(request.finished_at) {}
};

struct LoopFuture {
  PyObject_HEAD;
  State state;
  bool blocking;       // the task's sign that it was awaited, not yielded
  PyObject* loop;      // never null, like `value` once ended
  PyObject* callback;  // the awaiter's, or null
  PyObject* context;   // what to call it in
  PyObject* value;     // outputs, exception, or message of the cancellation
  PendingRequest pending;
  Times times;
};

// Held for ever.
PyTypeObject* type = nullptr;
PyTypeObject* task_type = nullptr;
py::handle cancelled_error;
py::handle answered;  // a future of asyncio that has ended with None, and of no loop

// The loop on which this thread runs an awaiter, or null.
thread_local PyObject* running = nullptr;

// Between `attach`, which any thread calls, and the end of a future.
using Alone = py::scoped_critical_section;

LoopFuture* cast(PyObject* object) { return reinterpret_cast<LoopFuture*>(object); }
PyObject* cast(LoopFuture* future) { return reinterpret_cast<PyObject*>(future); }

py::object import(const char* module, const char* name) {
  return py::module_::import(module).attr(name);
}

// --- Awaiters

PyObject* call_in_context(PyObject* context, PyObject* callback, PyObject* argument) {
  if (PyContext_Enter(context) != 0) return nullptr;
  PyObject* result = PyObject_CallOneArg(callback, argument);
  PyObject *kind = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&kind, &error, &traceback);
  if (PyContext_Exit(context) != 0) PyErr_Clear();
  PyErr_Restore(kind, error, traceback);
  return result;
}

void call_soon(LoopFuture* self, const py::object& callback, const py::object& context) {
  py::handle(self->loop)
      .attr("call_soon")(callback, py::handle(cast(self)), py::arg("context") = context);
}

py::object take(PyObject*& member) {
  return py::reinterpret_steal<py::object>(std::exchange(member, nullptr));
}

/// False when it had ended before. What could be cancelled until now becomes the caller's.
bool end(LoopFuture* self, State state, py::object value, PendingRequest& pending) {
  const Alone alone(cast(self));
  if (self->state != State::kPending) return false;
  self->state = state;
  self->value = value.release().ptr();
  if (self->pending.request) self->times = Times(*self->pending.request);
  pending = std::move(self->pending);
  return true;
}

void schedule_awaiter(LoopFuture* self) {
  const py::object callback = take(self->callback);
  const py::object context = take(self->context);
  if (callback) call_soon(self, callback, context);
}

/// Whether it is a task's own way to wake up.
bool wakes_task(PyObject* callback) {
  PyObject* self = PyCFunction_CheckExact(callback) ? PyCFunction_GET_SELF(callback) : nullptr;
  return self != nullptr && PyObject_TypeCheck(self, task_type);
}

void run_awaiter(LoopFuture* self) {
  const py::object callback = take(self->callback);
  const py::object context = take(self->context);
  if (!callback) return;
  PyObject* before = std::exchange(running, self->loop);
  // A task asks what wakes it up only for an exception, as the coroutine gets the result from here.
  // Of asyncio's own futures it knows without looking methods up.
  const bool plain = self->state == State::kDone && wakes_task(callback.ptr());
  const auto result = py::reinterpret_steal<py::object>(
      call_in_context(context.ptr(), callback.ptr(), plain ? answered.ptr() : cast(self)));
  running = before;
  if (!result) throw py::error_already_set();
}

py::object make_answered() {
  // All that a future asks of a loop while nothing waits for it.
  const py::object loop =
      import("types", "SimpleNamespace")(py::arg("get_debug") = py::type::of(py::bool_()));
  py::object future = import("asyncio", "Future")(py::arg("loop") = loop);
  future.attr("set_result")(py::none());
  return future;
}

bool end_with(LoopFuture* self, py::object outputs, py::object error) {
  PendingRequest pending;
  if (error.is_none()) return end(self, State::kDone, std::move(outputs), pending);
  return end(self, State::kFailed, std::move(error), pending);
}

// --- The protocol of asyncio.Future

PyObject* result(PyObject* object, PyObject* /*unused*/) {
  const LoopFuture* self = cast(object);
  switch (self->state) {
    case State::kDone:
      return Py_NewRef(self->value);
    case State::kFailed:
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(self->value)), self->value);
      return nullptr;
    case State::kCancelled:
      if (self->value == Py_None) {
        PyErr_SetNone(cancelled_error.ptr());
      } else {
        PyErr_SetObject(cancelled_error.ptr(), self->value);
      }
      return nullptr;
    case State::kPending:
      break;
  }
  PyErr_SetObject(import("asyncio", "InvalidStateError").ptr(),
                  py::str("the request has not ended").ptr());
  return nullptr;
}

PySendResult send_any(PyObject* object, PyObject* /*unused*/, PyObject** answer) {
  return send(object, answer);
}

PyObject* next(PyObject* object) {
  PyObject* answer = nullptr;
  const PySendResult result = send(object, &answer);
  return yielded(result, answer);
}

PyObject* await(PyObject* object) { return Py_NewRef(object); }

PyObject* add_done_callback(PyObject* object, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) {
  LoopFuture* self = cast(object);
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  if (count != 1 || named > 1 || self->callback != nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "the answer of a request has one awaiter");
    return nullptr;
  }
  PyObject* context = named == 1 ? Py_NewRef(arguments[1]) : PyContext_CopyCurrent();
  if (context == nullptr) return nullptr;
  self->callback = Py_NewRef(arguments[0]);
  self->context = context;
  if (self->state == State::kPending) Py_RETURN_NONE;
  return guarded([&] {
    schedule_awaiter(self);
    return Py_NewRef(Py_None);
  });
}

PyObject* cancel(PyObject* object, PyObject* arguments, PyObject* keywords) {
  LoopFuture* self = cast(object);
  PyObject* message = Py_None;
  const char* names[] = {"msg", nullptr};
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, "|O:cancel", const_cast<char**>(names),
                                  &message) == 0) {
    return nullptr;
  }
  PendingRequest pending;
  if (!end(self, State::kCancelled, py::reinterpret_borrow<py::object>(message), pending)) {
    Py_RETURN_FALSE;
  }
  return guarded([&] {
    if (pending.pipeline) pending.cancel();
    schedule_awaiter(self);
    return Py_NewRef(Py_True);
  });
}

PyObject* attach_pending(PyObject* object, PyObject* pending) {
  try {
    attach(object, py::cast<PendingRequest>(py::handle(pending)));
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  } catch (const py::cast_error&) {
    PyErr_SetString(PyExc_TypeError, "a PendingRequest is needed");
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* resolve_with_none(PyObject* object, PyObject* /*unused*/) {
  return guarded([&] {
    resolve(object, py::none(), py::none());
    return Py_NewRef(Py_None);
  });
}

PyObject* done(PyObject* object, PyObject* /*unused*/) {
  return PyBool_FromLong(cast(object)->state != State::kPending);
}

PyObject* fill_timeline(PyObject* object, PyObject* timeline) {
  return note_times(object, timeline) ? Py_NewRef(Py_None) : nullptr;
}

// Tasks look for a method `get_loop` first; to call one costs more than to read this.
PyObject* get_loop(PyObject* object, void* /*unused*/) { return Py_NewRef(cast(object)->loop); }

PyObject* get_blocking(PyObject* object, void* /*unused*/) {
  return PyBool_FromLong(cast(object)->blocking);
}

int set_blocking(PyObject* object, PyObject* value, void* /*unused*/) {
  const int truth = value == nullptr ? -1 : PyObject_IsTrue(value);
  if (truth >= 0) cast(object)->blocking = truth != 0;
  return truth < 0 ? -1 : 0;
}

// --- The type

PyObject* create(PyTypeObject* /*type*/, PyObject* arguments, PyObject* /*keywords*/) {
  PyObject* loop = nullptr;
  if (PyArg_ParseTuple(arguments, "O:LoopFuture", &loop) == 0) return nullptr;
  return make(loop).release().ptr();
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  const LoopFuture* self = cast(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->loop);
  Py_VISIT(self->callback);
  Py_VISIT(self->context);
  Py_VISIT(self->value);
  return 0;
}

int clear(PyObject* object) {
  LoopFuture* self = cast(object);
  Py_CLEAR(self->callback);
  Py_CLEAR(self->context);
  return 0;
}

void deallocate(PyObject* object) {
  LoopFuture* self = cast(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  Py_CLEAR(self->loop);
  Py_CLEAR(self->value);
  self->pending.~PendingRequest();
  PyTypeObject* kind = Py_TYPE(object);
  PyObject_GC_Del(object);
  Py_DECREF(kind);
}

PyTypeObject* make_loop_future_type() {
  static PyMethodDef methods[] = {
      {"add_done_callback", reinterpret_cast<PyCFunction>(slot(&add_done_callback)),
       METH_FASTCALL | METH_KEYWORDS, nullptr},
      {"attach", &attach_pending, METH_O, nullptr},
      {"cancel", reinterpret_cast<PyCFunction>(slot(&cancel)), METH_VARARGS | METH_KEYWORDS,
       nullptr},
      {"done", &done, METH_NOARGS, nullptr},
      {"note_times", &fill_timeline, METH_O, nullptr},
      {"resolve", &resolve_with_none, METH_NOARGS, nullptr},
      {"result", &result, METH_NOARGS, nullptr},
      {}};
  static PyGetSetDef properties[] = {
      {"_asyncio_future_blocking", &get_blocking, &set_blocking, nullptr, nullptr},
      {"_loop", &get_loop, nullptr, nullptr, nullptr},
      {}};
  static PyType_Slot slots[] = {{Py_tp_new, slot(&create)},
                                {Py_tp_dealloc, slot(&deallocate)},
                                {Py_tp_traverse, slot(&traverse)},
                                {Py_tp_clear, slot(&clear)},
                                {Py_tp_methods, methods},
                                {Py_tp_getset, properties},
                                {Py_tp_iter, slot(&PyObject_SelfIter)},
                                {Py_tp_iternext, slot(&next)},
                                {Py_am_await, slot(&await)},
                                {Py_am_send, slot(&send_any)},
                                {}};
  static PyType_Spec spec = {"trtinfer._core.LoopFuture", sizeof(LoopFuture), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  return make_type(spec);
}

LoopFuture* checked(py::handle future) {
  if (Py_TYPE(future.ptr()) != type) throw py::type_error("the cookie is no LoopFuture");
  return cast(future.ptr());
}

}  // namespace

py::object make(py::handle loop) {
  LoopFuture* self = PyObject_GC_New(LoopFuture, type);
  if (self == nullptr) throw py::error_already_set();
  self->state = State::kPending;
  self->blocking = false;
  self->loop = loop.inc_ref().ptr();
  self->callback = self->context = self->value = nullptr;
  new (&self->pending) PendingRequest();
  self->times = {};
  PyObject_GC_Track(cast(self));
  return py::reinterpret_steal<py::object>(cast(self));
}

PySendResult send(py::handle future, PyObject** answer) {
  LoopFuture* self = cast(future.ptr());
  if (self->state == State::kPending) {
    self->blocking = true;
    *answer = Py_NewRef(future.ptr());
    return PYGEN_NEXT;
  }
  *answer = result(future.ptr(), nullptr);
  return *answer == nullptr ? PYGEN_ERROR : PYGEN_RETURN;
}

py::handle running_loop() { return running; }

bool has_awaiter(py::handle future) {
  const LoopFuture* self = cast(future.ptr());
  return self->state == State::kPending && self->callback != nullptr;
}

bool note_times(py::handle future, py::handle timeline) {
  const Times& times = cast(future.ptr())->times;
  for (const auto& [name, time] : {std::pair("arrival", times.arrival),
                                   {"launch", times.launched},
                                   {"completion", times.finished}}) {
    const auto value = py::reinterpret_steal<py::object>(PyLong_FromLongLong(time));
    if (!value || PyObject_SetAttrString(timeline.ptr(), name, value.ptr()) < 0) return false;
  }
  return true;
}

void attach(py::handle future, PendingRequest pending) {
  LoopFuture* self = checked(future);
  State state;
  {
    const Alone alone(future);
    state = self->state;
    if (state == State::kPending) {
      std::swap(self->pending, pending);
    } else if (state != State::kCancelled) {
      self->times = Times(*pending.request);
    }
  }
  if (state == State::kCancelled) pending.cancel();
}

void resolve(py::handle future, py::object outputs, py::object error) {
  LoopFuture* self = checked(future);
  if (end_with(self, std::move(outputs), std::move(error))) run_awaiter(self);
}

void resolve_soon(py::handle future, py::object outputs, py::object error) {
  LoopFuture* self = checked(future);
  if (end_with(self, std::move(outputs), std::move(error))) schedule_awaiter(self);
}

}  // namespace trtinfer::bindings::loop_future

namespace trtinfer::bindings {

void register_loop_future(py::module_& m) {
  loop_future::type = loop_future::make_loop_future_type();
  loop_future::cancelled_error = loop_future::import("asyncio", "CancelledError").release();
  loop_future::task_type =
      reinterpret_cast<PyTypeObject*>(loop_future::import("asyncio", "Task").release().ptr());
  loop_future::answered = loop_future::make_answered().release();
  m.add_object("LoopFuture", reinterpret_cast<PyObject*>(loop_future::type));
}

}  // namespace trtinfer::bindings
