// Batches on several devices, and devices that fail.
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"
#include "pipeline/devices_executor.hpp"

using namespace trtinfer::pipeline;

namespace {

constexpr std::uint32_t kLanesEach = 2;
constexpr trtinfer::ring::RingOptions kOptions{
    .capacity = 512, .lanes = 2 * kLanesEach, .groups = 2, .max_batch_size = 4};

/// Adds one until it dies; sees to it that a lane has one batch at a time.
class Device : public AddOne {
 public:
  TransferTimes run(const Batch& batch) override {
    CHECK(batch.lane < kLanesEach);
    const std::unique_lock lock(lanes_[batch.lane], std::try_to_lock);
    CHECK(lock.owns_lock());
    const TransferTimes times = AddOne::run(batch);
    ++batches;
    if (refuses) throw BatchError("a bad batch");
    if (dead) throw std::runtime_error("it died");
    return times;
  }

  std::atomic<int> batches{0};
  std::atomic<bool> dead{false}, refuses{false};

 private:
  std::array<std::mutex, kLanesEach> lanes_;
};

/// A pipeline over two devices.
struct Two {
  std::shared_ptr<Device> first = std::make_shared<Device>(), second = std::make_shared<Device>();
  std::mutex mutex;
  std::vector<std::pair<std::size_t, std::string>> reports;
  AddOnePipeline p{kOptions, first,
                   std::make_shared<DevicesExecutor>(
                       std::vector<std::shared_ptr<Executor>>{first, second}, kLanesEach,
                       [this](std::size_t device, const std::string& reason) {
                         const std::lock_guard lock(mutex);
                         reports.emplace_back(device, reason);
                       })};

  /// Publishes requests and waits until every lane has a batch, which stays until gates open.
  std::vector<std::shared_ptr<Request>> queue(int count) const {
    first->close_gate();
    second->close_gate();
    const auto notifier = std::make_shared<Notifier>();
    std::vector<std::shared_ptr<Request>> requests;
    for (int i = 0; i < count; ++i) requests.push_back(p.publish(float(i), 1, notifier));
    first->wait_until_running(kLanesEach);
    second->wait_until_running(kLanesEach);
    return requests;
  }

  void open_gates() const {
    first->open_gate();
    second->open_gate();
  }
};

void uses_the_first_device_for_a_lone_caller() {
  Two two;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // lane threads look for work first
  for (int i = 0; i < 8; ++i) CHECK(is_answer(*two.p.infer(float(i)), float(i)));
  CHECK(two.first->batches == 8 && two.second->batches == 0);
}

void uses_every_lane_of_both_devices() {
  Two two;
  const auto requests = two.queue(64);
  two.open_gates();
  two.p.pipeline->close(true);
  for (int i = 0; i < 64; ++i) CHECK(is_answer(*requests[i], float(i)));
  CHECK(two.reports.empty());
}

void answers_what_a_dead_device_had_on_the_other() {
  Two two;
  const auto requests = two.queue(500);
  two.first->dead = true;
  two.open_gates();
  two.p.pipeline->close(true);
  for (int i = 0; i < 500; ++i) {
    CHECK(requests[i]->outcome() == Outcome::kCompleted && is_answer(*requests[i], float(i)));
  }
  CHECK(two.first->batches == int(kLanesEach));  // none after those that died
  CHECK(two.reports.size() == 1 && two.reports[0].first == 0 && two.reports[0].second == "it died");
}

void keeps_the_last_device() {
  Two two;
  two.first->dead = two.second->dead = true;
  const auto request = two.p.infer(1);
  CHECK(request->outcome() == Outcome::kFailed && request->error() == "it died");
  CHECK(two.reports.size() == 1);
  two.second->dead = false;
  CHECK(is_answer(*two.p.infer(1), 1));
}

void keeps_a_device_that_a_bad_batch_met() {
  Two two;
  two.first->refuses = true;
  CHECK(two.p.infer(1)->error() == "a bad batch" && two.reports.empty());
  two.first->refuses = false;
  CHECK(is_answer(*two.p.infer(1), 1) && two.second->batches == 0);
}

}  // namespace

int main() {
  uses_the_first_device_for_a_lone_caller();
  uses_every_lane_of_both_devices();
  answers_what_a_dead_device_had_on_the_other();
  keeps_the_last_device();
  keeps_a_device_that_a_bad_batch_met();
}
