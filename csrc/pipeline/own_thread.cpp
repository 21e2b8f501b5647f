#include "pipeline/own_thread.hpp"

namespace trtinfer::pipeline {
namespace {

thread_local bool own = false;

}  // namespace

void mark_own_thread() { own = true; }

bool on_own_thread() { return own; }

}  // namespace trtinfer::pipeline
