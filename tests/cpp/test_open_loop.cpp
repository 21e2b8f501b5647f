// Load that arrives at set times.
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"
#include "pipeline/open_loop.hpp"

using namespace trtinfer::pipeline;
using trtinfer::ring::Nanoseconds;

namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;
constexpr float kGood[] = {1, 2}, kWrong[] = {kBad, 0};

Sample sample(const float* row) {
  return {1, false, {reinterpret_cast<const std::byte*>(row)}, {kRowBytes}, {}};
}

std::vector<Nanoseconds> every(Nanoseconds pause, std::size_t count) {
  std::vector<Nanoseconds> times;
  for (std::size_t i = 0; i < count; ++i) times.push_back(static_cast<Nanoseconds>(i) * pause);
  return times;
}

void answers_every_request_and_sends_none_early(std::size_t senders) {
  const AddOnePipeline p({.capacity = 512, .lanes = 2, .max_batch_size = 4});
  OpenLoop loop(p.pipeline, {sample(kGood)}, every(kMillisecond / 10, 300), {.senders = senders});
  loop.run();
  CHECK(loop.sent() == 300 && p.pipeline->stats().completed == 300);
  CHECK(loop.elapsed() >= 299 * kMillisecond / 10);
  for (const Nanoseconds latency : loop.latencies()) CHECK(latency > 0);
  for (const Nanoseconds late : loop.lateness()) CHECK(late >= 0);
}

void counts_latency_from_the_arrival_while_the_server_stalls() {
  const AddOnePipeline p({.capacity = 64, .max_batch_size = 1});
  p.executor->close_gate();
  OpenLoop loop(p.pipeline, {sample(kGood)}, every(kMillisecond, 20));
  std::thread runner([&] { loop.run(); });
  while (loop.sent() != 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  p.executor->open_gate();
  runner.join();
  for (std::size_t i = 0; i < 20; ++i) {
    CHECK(loop.latencies()[i] >= 50 * kMillisecond + static_cast<Nanoseconds>(19 - i));
  }
  CHECK(loop.latencies()[0] > loop.latencies()[19] + 10 * kMillisecond);
}

void tells_refused_and_failed_requests_apart() {
  const AddOnePipeline p({.capacity = 2, .max_batch_size = 1});
  p.executor->close_gate();
  OpenLoop loop(p.pipeline, {sample(kGood), sample(kWrong)}, every(0, 6));
  std::thread runner([&] { loop.run(); });
  while (loop.sent() != 6) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.executor->open_gate();
  runner.join();
  CHECK(loop.latencies()[0] > 0 && loop.latencies()[1] == OpenLoop::kFailed);
  for (std::size_t i = 2; i < 6; ++i) CHECK(loop.latencies()[i] == OpenLoop::kRefused);
  CHECK(p.pipeline->stats().rejected == 4);
}

void keeps_timeouts() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  p.executor->close_gate();
  OpenLoop loop(p.pipeline, {sample(kGood)}, every(0, 5),
                {.timeout = 50 * kMillisecond, .priorities = {0, 1}});
  std::thread runner([&] { loop.run(); });
  while (p.pipeline->stats().expired != 5) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  p.executor->open_gate();
  runner.join();
  for (const Nanoseconds latency : loop.latencies()) CHECK(latency == OpenLoop::kFailed);
}

void keeps_priorities() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  p.executor->close_gate();
  p.executor->delay = std::chrono::milliseconds(20);  // or several would be seen to end at once
  OpenLoop ordered(p.pipeline, {sample(kGood)}, every(0, 5), {.priorities = {0, 1}});
  std::thread runner([&] { ordered.run(); });
  while (ordered.sent() != 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.executor->open_gate();
  runner.join();
  CHECK(ordered.latencies()[3] < ordered.latencies()[4]);
}

void stops_in_a_long_pause() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  OpenLoop loop(p.pipeline, {sample(kGood)}, {0, 3'600'000 * kMillisecond});
  std::thread runner([&] { loop.run(); });
  while (loop.sent() != 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  loop.stop();
  runner.join();
  CHECK(loop.latencies()[0] > 0 && loop.latencies()[1] == OpenLoop::kUnsent);
}

void ends_when_the_pipeline_is_closed(std::size_t senders) {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  OpenLoop loop(p.pipeline, {sample(kGood)}, every(kMillisecond, 100'000), {.senders = senders});
  bool refused = false;
  std::thread runner([&] {
    try {
      loop.run();
    } catch (const ClosedError&) {
      refused = true;
    }
  });
  while (loop.sent() < 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.pipeline->close(false);
  runner.join();
  CHECK(refused);
}

void a_sender_without_room_keeps_no_other() {
  const AddOnePipeline p({.capacity = 2, .max_batch_size = 1});
  p.executor->close_gate();
  OpenLoop loop(p.pipeline, {sample(kGood)}, every(0, 8), {.waits_for_room = true, .senders = 3});
  std::thread runner([&] { loop.run(); });
  while (loop.sent() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.executor->open_gate();
  runner.join();
  CHECK(loop.sent() == 8 && p.pipeline->stats().completed == 8);
}

void wants_arrivals_in_order() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  CHECK_THROWS(OpenLoop(p.pipeline, {sample(kGood)}, {2, 1}), std::invalid_argument);
}

}  // namespace

int main() {
  answers_every_request_and_sends_none_early(1);
  answers_every_request_and_sends_none_early(3);
  counts_latency_from_the_arrival_while_the_server_stalls();
  tells_refused_and_failed_requests_apart();
  keeps_timeouts();
  keeps_priorities();
  stops_in_a_long_pause();
  ends_when_the_pipeline_is_closed(1);
  ends_when_the_pipeline_is_closed(3);
  a_sender_without_room_keeps_no_other();
  wants_arrivals_in_order();
}
