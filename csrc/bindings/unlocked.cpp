#include "bindings/unlocked.hpp"

#include <cxxabi.h>
#include <unistd.h>

namespace trtinfer::bindings {

bool may_touch_python() {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked() != nullptr;
#elif PY_VERSION_HEX >= 0x030C0000
  return _PyThreadState_UncheckedGet() != nullptr;
#else
  // That of the thread that holds the GIL, which may be another.
  const PyThreadState* running = _PyThreadState_UncheckedGet();
  return running != nullptr && running == PyGILState_GetThisThreadState();
#endif
}

Unlocked::~Unlocked() {
  try {
    PyEval_RestoreThread(state_);
  } catch (
      const abi::__forced_unwind&) {  // pthread_exit, which a handler may only rethrow or outlast
    for (;;) ::pause();
  }
}

}  // namespace trtinfer::bindings
