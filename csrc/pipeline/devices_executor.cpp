#include "pipeline/devices_executor.hpp"

#include <utility>

namespace trtinfer::pipeline {

DevicesExecutor::DevicesExecutor(std::vector<std::shared_ptr<Executor>> devices,
                                 std::uint32_t lanes_each, Report report)
    : lanes_each_(lanes_each),
      devices_(devices.size()),
      left_(devices.size()),
      report_(std::move(report)) {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    devices_[i].executor = std::move(devices[i]);
    devices_[i].lanes = std::vector<std::mutex>(lanes_each);
  }
}

TransferTimes DevicesExecutor::run(const Batch& batch) {
  std::size_t index = batch.lane / lanes_each_;
  Batch there = batch;
  there.lane = batch.lane % lanes_each_;
  there.inputs_consumed = nullptr;  // another device may have to read them
  for (;;) {
    while (devices_[index].failed.load(std::memory_order_acquire)) {
      index = (index + 1) % devices_.size();
    }
    const std::lock_guard lock(devices_[index].lanes[there.lane]);
    try {
      return devices_[index].executor->run(there);
    } catch (const BatchError&) {
      throw;
    } catch (const std::exception& error) {
      if (!give_up(index, error.what())) throw;
    }
  }
}

std::vector<LaneStream> DevicesExecutor::streams() const {
  std::vector<LaneStream> streams;
  for (const Device& device : devices_) {
    const std::vector<LaneStream> own = device.executor->streams();
    streams.insert(streams.end(), own.begin(), own.end());
  }
  return streams;
}

bool DevicesExecutor::give_up(std::size_t index, const std::string& reason) {
  {
    const std::lock_guard lock(giving_up_);
    if (devices_[index].failed.load(std::memory_order_acquire)) return true;
    if (left_ == 1) return false;
    --left_;
    devices_[index].failed.store(true, std::memory_order_release);
  }
  report_(index, reason);
  return true;
}

}  // namespace trtinfer::pipeline
