#include "pipeline/devices_executor.hpp"

#include <utility>

namespace trtinfer::pipeline {

DevicesExecutor::DevicesExecutor(std::vector<std::shared_ptr<Executor>> devices,
                                 std::uint32_t lanes_each, Report report)
    : lanes_each_(lanes_each), devices_(devices.size()), report_(std::move(report)) {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    devices_[i].executor = std::move(devices[i]);
    devices_[i].lanes = std::vector<std::mutex>(lanes_each);
  }
}

void DevicesExecutor::run(const Batch& batch) {
  const std::size_t home = batch.lane / lanes_each_;
  Batch there = batch;
  there.lane = batch.lane % lanes_each_;
  std::string reason = "no device is left";
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    const std::size_t index = (home + i) % devices_.size();
    Device& device = devices_[index];
    if (device.failed.load(std::memory_order_acquire)) continue;
    const std::lock_guard lock(device.lanes[there.lane]);
    try {
      device.executor->run(there);
      return;
    } catch (const ExecutionError&) {
      throw;  // it is the batch that is wrong
    } catch (const std::exception& error) {
      reason = error.what();
      fail(index, reason);
    }
  }
  throw std::runtime_error(reason);
}

void DevicesExecutor::fail(std::size_t index, const std::string& reason) {
  if (!devices_[index].failed.exchange(true, std::memory_order_acq_rel)) report_(index, reason);
}

}  // namespace trtinfer::pipeline
