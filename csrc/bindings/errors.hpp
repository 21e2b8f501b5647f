// How the core's errors become those of trtinfer.errors.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <memory>
#include <string>

#include "bindings/unlocked.hpp"
#include "pipeline/request.hpp"

namespace trtinfer::bindings {

/// An instance of the class `name` of trtinfer.errors.
pybind11::object make_error(const char* name, const std::string& message);

/// Sets an exception object as the one being raised.
void set_error(const pybind11::object& error);

/// Whether it is an instance of the class `name` of trtinfer.errors.
bool is_error(const pybind11::object& error, const char* name);

/// Raises the class `name` of trtinfer.errors.
[[noreturn]] void raise_error(const char* name, const std::string& message);

/// The Python exception that a caught C++ exception stands for; null when it stands for none.
pybind11::object exception_of(std::exception_ptr raised);

/// The exception that stands for how a request ended; the request has not completed.
pybind11::object outcome_error(const pipeline::Request& request);

/// Runs `use` with the GIL, which may be held already; false, and not at all, once the interpreter
/// is gone.
template <typename Use>
bool with_gil(const Use& use) {
  if (Py_IsInitialized() == 0) return false;
  if (may_touch_python()) {  // much cheaper than to acquire it again
    use();
    return true;
  }
  const pybind11::gil_scoped_acquire locked;
  use();
  return true;
}

/// Keeps a Python object alive from code that may not hold the GIL.
std::shared_ptr<void> hold(pybind11::object object);

}  // namespace trtinfer::bindings
