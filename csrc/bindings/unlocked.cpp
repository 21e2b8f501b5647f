#include "bindings/unlocked.hpp"

#include <cxxabi.h>
#include <unistd.h>

namespace trtinfer::bindings {

Unlocked::~Unlocked() {
  try {
    PyEval_RestoreThread(state_);
  } catch (
      const abi::__forced_unwind&) {  // pthread_exit, which a handler may only rethrow or outlast
    for (;;) ::pause();
  }
}

}  // namespace trtinfer::bindings
