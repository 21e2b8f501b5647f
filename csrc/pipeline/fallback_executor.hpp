#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/executor.hpp"

namespace trtinfer::pipeline {

/// Runs batches on one backend until it fails, then on another for good: the batch under way is run
/// again there, from the same slots, so nothing is lost and nothing is answered twice.
class FallbackExecutor : public Executor {
 public:
  using Make = std::function<std::shared_ptr<Executor>()>;
  using Report = std::function<void(const std::string& reason)>;

  /// `make_second` is called at the first failure; `report` then tells why, once.
  FallbackExecutor(std::shared_ptr<Executor> first, Make make_second, Report report)
      : first_(std::move(first)),
        make_second_(std::move(make_second)),
        report_(std::move(report)) {}

  TransferTimes run(const Batch& batch) override;
  std::uint64_t batch_key(const std::vector<Shape>& shapes) const override {
    return first_->batch_key(shapes);
  }
  std::string refusal(const std::vector<Shape>& shapes) const override {
    return has_failed() ? second_->refusal(shapes) : first_->refusal(shapes);
  }
  const std::vector<TensorSpec>& outputs() const override { return first_->outputs(); }
  std::optional<int> gpu() const override { return first_->gpu(); }
  std::vector<LaneStream> streams() const override { return first_->streams(); }
  bool reads_device_inputs() const override {
    return !has_failed() && first_->reads_device_inputs();
  }
  bool keeps_outputs() const override { return !has_failed() && first_->keeps_outputs(); }

  /// Whether the first backend has failed.
  bool has_failed() const { return failed_.load(std::memory_order_acquire); }

 private:
  void switch_over(const std::string& reason);

  std::shared_ptr<Executor> first_, second_;
  Make make_second_;
  Report report_;
  std::atomic<bool> failed_{false};
  std::mutex switching_;
};

}  // namespace trtinfer::pipeline
