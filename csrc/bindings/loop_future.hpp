// What a task awaits in `ainfer`.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/claim.hpp"

namespace trtinfer::bindings {

/// The future of one request of an event loop, with one awaiter. It speaks the protocol of
/// `asyncio.Future` that tasks rely on, with one difference: who ends it, on its loop, runs the
/// awaiting task right then. A future of asyncio has each task scheduled by itself, which costs
/// more than all the rest of a request. A type written by hand, since one is made per request.
/// Used with the GIL held, on its loop's thread unless said otherwise.
namespace loop_future {

pybind11::object make(pybind11::handle loop);

/// As PyIter_Send with None: what awaits it yields the future itself while it has not ended.
PySendResult send(pybind11::handle future, PyObject** answer);

/// The loop on which an awaiter is being run on this thread, or null: there it is the running loop,
/// and to know that costs less than to ask asyncio (a system call until Python 3.11).
pybind11::handle running_loop();

/// Whether it has not ended and something waits for that.
bool has_awaiter(pybind11::handle future);

/// Sets arrival, launch and completion of a `trtinfer.Timeline`; false, with an exception set, when
/// that fails.
bool note_times(pybind11::handle future, pybind11::handle timeline);

/// Says what `cancel` takes back; taken back at once if it was cancelled before. Any thread.
void attach(pybind11::handle future, PendingRequest pending);

/// Ends the future with outputs, or with `error` unless that is None, and runs its awaiter; nothing
/// happens when it was cancelled. Raises what no task keeps to itself, such as KeyboardInterrupt.
void resolve(pybind11::handle future, pybind11::object outputs, pybind11::object error);

/// The same, but the awaiter is scheduled as asyncio does it.
void resolve_soon(pybind11::handle future, pybind11::object outputs, pybind11::object error);

}  // namespace loop_future

}  // namespace trtinfer::bindings
