// Who makes the calls that `Session.ainfer` and `Slot.ainfer` return.
#pragma once

#include <pybind11/pybind11.h>

#include <array>

#include "bindings/notifier.hpp"
#include "bindings/pipeline.hpp"

namespace trtinfer::bindings {

/// `LoopCaller(pipeline, has_tensors, completer_of, call_slowly)`: the way of a session's calls
/// from event loops into its pipeline. `ainfer(owner, x, timeout, priority, timeline)` makes a
/// call, which keeps its owner alive; `x` may be a claim. For any number of threads.
struct LoopCaller {
  PyObject_HEAD PyObject* pipeline;  // what `native` is within; never null, like the next two
  PyObject* completer_of;            // (loop) -> LoopCompleter
  PyObject* call_slowly;  // (loop, x, notifier, timeout, priority, timeline) -> coroutine
  PyObject *loop, *completer, *notifier;  // the last ones, or null
  PipelineHandle* native;
  NotifierHandle* native_notifier;
  bool has_tensors;

  std::array<PyObject**, 6> held() {
    return {&pipeline, &completer_of, &call_slowly, &loop, &completer, &notifier};
  }
};

/// An event loop and who ends requests on it.
struct Loop {
  pybind11::object loop, completer, notifier;
  NotifierHandle* native = nullptr;
};

/// The loop that runs on this thread; kept in the caller from one call to the next.
Loop running_loop(LoopCaller* caller);

}  // namespace trtinfer::bindings
