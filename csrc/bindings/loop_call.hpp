// What `Session.ainfer` and `Slot.ainfer` return.
#pragma once

#include "bindings/loop_caller.hpp"

namespace trtinfer::bindings {

/// A coroutine for owner, x, timeout, priority and timeline; null and an exception set without
/// memory for it.
PyObject* make_call(LoopCaller* caller, PyObject* const* arguments);

}  // namespace trtinfer::bindings
