#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/executor.hpp"

namespace trtinfer::pipeline {

/// Runs batches on several devices, each of which has an executor and a group of neighbouring
/// lanes. One that fails is given up: its batches, the failed one first, run on the next that
/// works, whose lanes they share. The last one is kept, and its errors are thrown.
class DevicesExecutor : public Executor {
 public:
  using Report = std::function<void(std::size_t device, const std::string& reason)>;

  /// Each of `devices` has `lanes_each` lanes, counted from 0; all describe the same model.
  /// `report` is told of each that is given up, by its place in `devices`.
  DevicesExecutor(std::vector<std::shared_ptr<Executor>> devices, std::uint32_t lanes_each,
                  Report report);

  TransferTimes run(const Batch& batch) override;
  std::uint64_t batch_key(const std::vector<Shape>& shapes) const override {
    return first().batch_key(shapes);
  }
  std::string refusal(const std::vector<Shape>& shapes) const override {
    return first().refusal(shapes);
  }
  const std::vector<TensorSpec>& outputs() const override { return first().outputs(); }
  std::optional<int> gpu() const override { return first().gpu(); }
  bool reads_device_inputs() const override { return first().reads_device_inputs(); }
  bool keeps_outputs() const override { return first().keeps_outputs(); }
  std::vector<LaneStream> streams() const override;

 private:
  struct Device {
    std::shared_ptr<Executor> executor;
    std::vector<std::mutex> lanes;  // a lane has one batch, whichever device it was meant for
    std::atomic<bool> failed{false};
  };

  const Executor& first() const { return *devices_.front().executor; }
  bool give_up(std::size_t index, const std::string& reason);

  const std::uint32_t lanes_each_;
  std::vector<Device> devices_;
  std::mutex giving_up_;
  std::size_t left_;
  Report report_;
};

}  // namespace trtinfer::pipeline
