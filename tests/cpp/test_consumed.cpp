// Slots that are given back while their batch still runs.
#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"
#include "pipeline/devices_executor.hpp"
#include "pipeline/fallback_executor.hpp"

using namespace trtinfer::pipeline;

namespace {

constexpr trtinfer::ring::RingOptions kOptions{.capacity = 4, .max_batch_size = 4};

/// Adds one, says that it has read the inputs, and stays until it is let go.
class Consuming : public AddOne {
 public:
  TransferTimes run(const Batch& batch) override {
    const TransferTimes times = AddOne::run(batch);
    asked = static_cast<bool>(batch.inputs_consumed);
    if (asked) batch.inputs_consumed();
    ++staying;
    while (stays) std::this_thread::yield();
    --staying;
    if (breaks) throw std::runtime_error("it broke");
    return times;
  }

  std::atomic<bool> asked{false}, stays{false}, breaks{false};
  std::atomic<int> staying{0};
};

/// A pipeline whose batches stay.
struct Staying {
  std::shared_ptr<Consuming> executor = std::make_shared<Consuming>();
  std::shared_ptr<Notifier> notifier = std::make_shared<Notifier>();
  AddOnePipeline p;

  /// `wrap` makes the backend that runs batches of the executor.
  template <typename Wrap>
  explicit Staying(const Wrap& wrap) : p(kOptions, executor, wrap(executor)) {
    executor->stays = true;
  }
  Staying() : Staying([](const std::shared_ptr<Executor>& own) { return own; }) {}

  /// Publishes a request that fills the ring and waits until its batch has read it.
  std::shared_ptr<Request> fill(float value) const {
    auto request = p.publish(value, 4, notifier);
    while (executor->staying == 0) std::this_thread::yield();
    return request;
  }

  std::uint32_t free_slots() const { return p.pipeline->occupancy().free; }
};

void gives_slots_to_the_next_requests() {
  const Staying f;
  const auto first = f.fill(1);
  CHECK(f.executor->asked && f.free_slots() == 4);
  const auto second = f.p.publish(5, 4, f.notifier);
  CHECK(f.free_slots() == 0 && !first->done());
  f.executor->stays = false;
  f.p.pipeline->close(true);
  CHECK(is_answer(*first, 1) && is_answer(*second, 5));
  CHECK(f.free_slots() == 4);
}

void asks_for_nothing_while_there_is_room() {
  const Staying f;
  f.executor->stays = false;
  CHECK(is_answer(*f.p.infer(1, 2), 1) && !f.executor->asked);
}

void fails_a_batch_as_a_whole_once_its_inputs_are_gone() {
  const Staying f;
  f.executor->breaks = true;
  const auto running = f.fill(1);
  const auto first = f.p.publish(2, 1, f.notifier), second = f.p.publish(3, 2, f.notifier);
  f.executor->stays = false;
  f.p.pipeline->close(true);
  CHECK(f.executor->asked && f.p.pipeline->stats().retried == 0);
  for (const auto& request : {running, first, second}) CHECK(request->error() == "it broke");
  CHECK(f.p.pipeline->stats().failed == 3 && f.free_slots() == 4);
}

void keeps_slots_that_a_fallback_may_have_to_read() {
  const auto second = std::make_shared<AddOne>();
  const Staying f([&](const std::shared_ptr<Executor>& own) {
    return std::make_shared<FallbackExecutor>(
        own, [&] { return second; }, [](const std::string&) {});
  });
  const auto request = f.fill(1);
  CHECK(!f.executor->asked && f.free_slots() == 0);
  f.executor->breaks = true;
  f.executor->stays = false;
  f.p.pipeline->close(true);
  CHECK(is_answer(*request, 1));
}

void keeps_slots_that_another_device_may_have_to_read() {
  const Staying f([](const std::shared_ptr<Executor>& own) {
    return std::make_shared<DevicesExecutor>(std::vector{own}, 1,
                                             [](std::size_t, const std::string&) {});
  });
  f.executor->stays = false;
  CHECK(is_answer(*f.p.infer(1, 4), 1) && !f.executor->asked);
}

}  // namespace

int main() {
  gives_slots_to_the_next_requests();
  asks_for_nothing_while_there_is_room();
  fails_a_batch_as_a_whole_once_its_inputs_are_gone();
  keeps_slots_that_a_fallback_may_have_to_read();
  keeps_slots_that_another_device_may_have_to_read();
}
