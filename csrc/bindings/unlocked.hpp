// Which thread may touch Python objects, and when.
#pragma once

#include <pybind11/pybind11.h>

namespace trtinfer::bindings {

/// Whether this thread may touch Python objects now: it holds the GIL, or is attached where there
/// is none. `PyGILState_Check` says so of every thread once the process has a second interpreter.
bool may_touch_python();

/// Gives the GIL up for as long as it lives. A daemon thread that comes back while the interpreter
/// ends sleeps until the process is gone: Python would end it by unwinding our frames, which drop
/// references to Python objects on their way and may not be unwound through destructors.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace trtinfer::bindings
