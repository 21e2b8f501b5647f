#include "tensorrt/progress_monitor.hpp"

#include <utility>

namespace trtinfer::tensorrt {
namespace {

std::string text_of(const char* text) { return text == nullptr ? "" : text; }

}  // namespace

ProgressMonitor::ProgressMonitor(ProgressCallback callback)
    : callback_(std::move(callback)), object_(this) {
  object_.set_versioned("IProgressMonitor");
  // The same in every family, as abi_check proves.
  object_.set(4, &ProgressMonitor::start);
  object_.set(5, &ProgressMonitor::step);
  object_.set(6, &ProgressMonitor::finish);
}

void ProgressMonitor::start(void* interface, const char* phase, const char* parent,
                            std::int32_t steps) noexcept {
  auto& self = owner_of<ProgressMonitor>(interface);
  const std::lock_guard lock(self.mutex_);
  Progress& progress = self.phases_[text_of(phase)];
  progress = {text_of(phase), text_of(parent), 0, steps};
  self.report(progress);
}

bool ProgressMonitor::step(void* interface, const char* phase, std::int32_t step) noexcept {
  auto& self = owner_of<ProgressMonitor>(interface);
  const std::lock_guard lock(self.mutex_);
  Progress& progress = self.phases_[text_of(phase)];
  progress.step = step + 1;  // TensorRT counts from 0 and says that this one is complete
  return self.report(progress);
}

void ProgressMonitor::finish(void* interface, const char* phase) noexcept {
  auto& self = owner_of<ProgressMonitor>(interface);
  const std::lock_guard lock(self.mutex_);
  Progress& progress = self.phases_[text_of(phase)];
  progress.step = progress.steps;
  self.report(progress);
  self.phases_.erase(text_of(phase));
}

bool ProgressMonitor::report(const Progress& progress) noexcept {
  if (stopped_) return false;
  try {
    stopped_ = !callback_(progress);
  } catch (...) {  // cannot pass through TensorRT
    error_ = std::current_exception();
    stopped_ = true;
  }
  return !stopped_;
}

void ProgressMonitor::rethrow() const {
  if (error_) std::rethrow_exception(error_);
}

}  // namespace trtinfer::tensorrt
