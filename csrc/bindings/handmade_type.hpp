// What types written by hand share: those of which one object is made per request.
#pragma once

#include <pybind11/pybind11.h>

namespace trtinfer::bindings {

/// A function as slots and method tables want it.
template <typename Function>
void* slot(Function* function) {
  return reinterpret_cast<void*>(function);
}

inline PyTypeObject* make_type(PyType_Spec& spec) {
  PyObject* made = PyType_FromSpec(&spec);
  if (made == nullptr) throw pybind11::error_already_set();
  return reinterpret_cast<PyTypeObject*>(made);
}

/// What `__next__` and `send` return, of what the slot for sending gave; takes the answer over.
inline PyObject* yielded(PySendResult result, PyObject* answer) {
  if (result == PYGEN_NEXT) return answer;
  if (result == PYGEN_RETURN) {
    // An instance: outputs that are a tuple would be taken for the arguments of the class.
    PyObject* stop = PyObject_CallOneArg(PyExc_StopIteration, answer);
    Py_DECREF(answer);
    if (stop != nullptr) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
  }
  return nullptr;
}

}  // namespace trtinfer::bindings
