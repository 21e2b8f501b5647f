#include "pipeline/fallback_executor.hpp"

namespace trtinfer::pipeline {
namespace {

// The second backend finds everything in the slots, which a unit with device inputs has as well.
void fetch_device_inputs(const Batch& batch) {
  for (const BatchUnit& unit : batch.units) {
    for (std::size_t i = 0; i < unit.inputs->size(); ++i) {
      const DeviceInput* input = unit.device_input(i);
      if (input != nullptr) fetch(*input, (*unit.inputs)[i]);
    }
  }
}

// What a GPU that has failed has written is lost.
void forget_outputs(const Batch& batch) {
  for (const BatchUnit& unit : batch.units) {
    for (OutputTensor& output : unit.request->outputs) {
      if (output.device) output = {};
    }
  }
}

}  // namespace

TransferTimes FallbackExecutor::run(const Batch& batch) {
  if (!has_failed()) {
    Batch kept = batch;
    kept.inputs_consumed = nullptr;  // the second may have to read them
    try {
      return first_->run(kept);
    } catch (const BatchError&) {
      throw;
    } catch (const std::exception& error) {
      switch_over(error.what());
    }
  }
  forget_outputs(batch);
  fetch_device_inputs(batch);
  return second_->run(batch);
}

void FallbackExecutor::switch_over(const std::string& reason) {
  const std::lock_guard lock(switching_);
  if (has_failed()) return;
  try {
    second_ = make_second_();
  } catch (const std::exception& error) {
    throw ExecutionError(reason + "; and the fallback cannot be opened: " + error.what());
  }
  failed_.store(true, std::memory_order_release);
  report_(reason);
}

}  // namespace trtinfer::pipeline
