#pragma once

namespace trtinfer::pipeline {

/// Marks the calling thread as one that a pipeline started.
void mark_own_thread();

/// Whether a pipeline started this thread; if so, it must not wait for a pipeline to close.
bool on_own_thread();

}  // namespace trtinfer::pipeline
