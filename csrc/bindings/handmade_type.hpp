// What types written by hand share: those of which one object is made per request.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <new>
#include <stdexcept>

#include "bindings/errors.hpp"

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

template <typename T, typename From>
T* as(From* object) {
  return reinterpret_cast<T*>(object);
}

inline pybind11::object borrow(PyObject* object) {
  return pybind11::reinterpret_borrow<pybind11::object>(object);
}
inline pybind11::object steal(PyObject* object) {
  if (object == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(object);
}

/// Runs what may throw for a caller that wants null and an exception set.
template <typename Run>
PyObject* guarded(const Run& run) {
  try {
    return run();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    const pybind11::object known = exception_of(std::current_exception());
    if (known) {
      set_error(known);
    } else {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
  }
  return nullptr;
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
