#include "bindings/loop_caller.hpp"

#include <pybind11/critical_section.h>

#include <utility>

#include "bindings/handmade_type.hpp"
#include "bindings/loop_call.hpp"
#include "bindings/loop_future.hpp"
#include "bindings/register.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {
namespace {

// Held for ever.
py::handle get_running_loop;

PyObject* ainfer(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 5) {
    PyErr_SetString(PyExc_TypeError, "ainfer(owner, x, timeout, priority, timeline)");
    return nullptr;
  }
  return make_call(as<LoopCaller>(self), arguments);
}

PyObject* create(PyTypeObject* type, PyObject* arguments, PyObject* /*keywords*/) {
  PyObject *pipeline = nullptr, *completer_of = nullptr, *call_slowly = nullptr;
  int has_tensors = 0;
  if (PyArg_ParseTuple(arguments, "OpOO:LoopCaller", &pipeline, &has_tensors, &completer_of,
                       &call_slowly) == 0) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    auto* native = py::handle(pipeline).cast<PipelineHandle*>();
    LoopCaller* caller = PyObject_GC_New(LoopCaller, type);
    if (caller == nullptr) throw py::error_already_set();
    caller->pipeline = Py_NewRef(pipeline);
    caller->completer_of = Py_NewRef(completer_of);
    caller->call_slowly = Py_NewRef(call_slowly);
    caller->loop = caller->completer = caller->notifier = nullptr;
    caller->native = native;
    caller->native_notifier = nullptr;
    caller->has_tensors = has_tensors != 0;
    PyObject_GC_Track(as<PyObject>(caller));
    return as<PyObject>(caller);
  });
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  auto* caller = as<LoopCaller>(self);
  Py_VISIT(Py_TYPE(self));
  for (PyObject** held : caller->held()) Py_VISIT(*held);
  return 0;
}

void deallocate(PyObject* self) {
  auto* caller = as<LoopCaller>(self);
  PyObject_GC_UnTrack(self);
  for (PyObject** held : caller->held()) Py_CLEAR(*held);
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

PyTypeObject* make_loop_caller_type() {
  static PyMethodDef methods[] = {
      {"ainfer", reinterpret_cast<PyCFunction>(slot(&ainfer)), METH_FASTCALL, nullptr}, {}};
  static PyType_Slot slots[] = {{Py_tp_new, slot(&create)},
                                {Py_tp_dealloc, slot(&deallocate)},
                                {Py_tp_traverse, slot(&traverse)},
                                {Py_tp_methods, methods},
                                {}};
  static PyType_Spec spec = {"trtinfer._core.LoopCaller", sizeof(LoopCaller), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  return make_type(spec);
}

}  // namespace

Loop running_loop(LoopCaller* caller) {
  Loop running;
  const py::handle known = loop_future::running_loop();
  running.loop = known ? borrow(known.ptr()) : steal(PyObject_CallNoArgs(get_running_loop.ptr()));
  const py::handle self(as<PyObject>(caller));
  {
    const py::scoped_critical_section alone(self);
    if (caller->loop == running.loop.ptr()) {
      running.completer = borrow(caller->completer);
      running.notifier = borrow(caller->notifier);
      running.native = caller->native_notifier;
      return running;
    }
  }
  running.completer = steal(PyObject_CallOneArg(caller->completer_of, running.loop.ptr()));
  running.notifier = running.completer.attr("notifier");
  running.native = running.notifier.cast<NotifierHandle*>();  // a search, so it is kept, too
  Loop last = running;
  const py::scoped_critical_section alone(self);
  for (auto [cached, found] : {std::pair(&caller->loop, &last.loop),
                               {&caller->completer, &last.completer},
                               {&caller->notifier, &last.notifier}}) {
    *found = py::reinterpret_steal<py::object>(std::exchange(*cached, found->release().ptr()));
  }
  caller->native_notifier = running.native;
  return running;
}

void register_loop_caller(py::module_& m) {
  get_running_loop = py::object(py::module_::import("asyncio").attr("get_running_loop")).release();
  m.add_object("LoopCaller", as<PyObject>(make_loop_caller_type()));
}

}  // namespace trtinfer::bindings
