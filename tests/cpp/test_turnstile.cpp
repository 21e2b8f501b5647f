// Callers on their way back.
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "check.hpp"
#include "pipeline/turnstile.hpp"

using trtinfer::pipeline::Turnstile;
using trtinfer::ring::Nanoseconds;
using trtinfer::ring::now;

namespace {

constexpr Nanoseconds kMillisecond = 1'000'000, kMinute = 60'000 * kMillisecond;

void pause_ms(int count) { std::this_thread::sleep_for(std::chrono::milliseconds(count)); }

void lets_a_lone_caller_through() {
  Turnstile turnstile(kMinute, kMinute);
  for (int i = 0; i < 1000; ++i) {
    turnstile.go_out();
    turnstile.come_in();
  }
}

void lets_callers_out_one_by_one_in_order() {
  Turnstile turnstile(kMinute, 0);
  turnstile.go_out();
  std::atomic<int> out{0};
  std::vector<int> order;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      turnstile.go_out();
      order.push_back(i);
      ++out;
    });
    pause_ms(20);
  }
  for (int i = 0; i < 4; ++i) {
    pause_ms(20);
    CHECK(out == i);
    turnstile.come_in();
    while (out == i) std::this_thread::yield();
  }
  for (std::thread& caller : callers) caller.join();
  CHECK((order == std::vector<int>{0, 1, 2, 3}));
}

void waits_for_nobody_who_stays_away() {
  Turnstile turnstile(20 * kMillisecond, 0);
  turnstile.go_out();
  const Nanoseconds begin = now();
  turnstile.go_out();
  turnstile.go_out();
  CHECK(now() - begin >= 39 * kMillisecond);
  pause_ms(30);
  const Nanoseconds later = now();
  turnstile.go_out();  // long enough ago
  CHECK(now() - later < 15 * kMillisecond);
}

void lets_everybody_through_in_a_crowd() {
  constexpr int kCallers = 16, kTimes = 2000;
  Turnstile turnstile;
  std::mutex lock;
  int held = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < kTimes; ++j) {
        turnstile.go_out();
        {
          const std::lock_guard guard(lock);
          ++held;
        }
        turnstile.come_in();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(held == kCallers * kTimes);
}

}  // namespace

int main() {
  lets_a_lone_caller_through();
  lets_callers_out_one_by_one_in_order();
  waits_for_nobody_who_stays_away();
  lets_everybody_through_in_a_crowd();
}
