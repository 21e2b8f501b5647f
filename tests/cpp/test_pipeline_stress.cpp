// Waiting callers, notified callers, deadlines, cancels, bad rows, abandoned claims and a close in
// the middle: every accepted request ends exactly once, with the right answer if it completed.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"

using namespace trtinfer::pipeline;
using trtinfer::ring::kNever;
using trtinfer::ring::Nanoseconds;

namespace {

struct Ends {
  std::atomic<std::uint64_t> accepted{0}, rejected{0};
  std::atomic<std::uint64_t> by_outcome[6] = {};

  std::uint64_t of(Outcome outcome) const { return by_outcome[static_cast<int>(outcome)]; }
};

class Stress {
 public:
  // A target of 0: no policy.
  Stress(std::uint32_t lanes, Nanoseconds max_delay, Nanoseconds target)
      : pipeline_({.capacity = 48, .lanes = lanes, .max_batch_size = 8, .max_delay = max_delay},
                  std::make_shared<AddOne>(true), nullptr, make_policy(lanes, target)) {}

  void run(int milliseconds, bool drain) {
    std::thread reader([this] { read(); });
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) callers.emplace_back([this, i] { call(i); });
    for (int i = 0; i < 2; ++i) callers.emplace_back([this, i] { submit(i); });
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    pipeline_.pipeline->close(drain);
    for (std::thread& caller : callers) caller.join();
    notifier_->stop();
    reader.join();
    check_counters();
  }

  const Ends& ends() const { return ends_; }

 private:
  static std::shared_ptr<LatencyPolicy> make_policy(std::uint32_t lanes, Nanoseconds target) {
    if (target == 0) return nullptr;
    LatencyPolicyOptions options{.target = target, .lanes = lanes, .sizes = {1, 2, 4, 8}};
    return std::make_shared<LatencyPolicy>(std::move(options));
  }

  // Half a batch at most, or several batches; a bad row now and then.
  struct Draw {
    float value;
    std::uint32_t rows;
    Nanoseconds timeout;
  };

  static Draw draw(std::mt19937& random) {
    const bool bad = random() % 32 == 0;
    const std::uint32_t rows = random() % 16 == 0 ? 9 + random() % 16 : 1 + random() % 4;
    const Nanoseconds timeouts[] = {kNever, kNever, 30'000, 3'000'000};
    return {bad ? kBad : static_cast<float>(random() % 1000), rows, timeouts[random() % 4]};
  }

  void end(const Request& request, float value) {
    const Outcome outcome = request.outcome();
    CHECK(outcome != Outcome::kPending);
    if (outcome == Outcome::kCompleted) CHECK(value != kBad && is_answer(request, value));
    if (outcome == Outcome::kFailed) CHECK(value == kBad && request.error() == "a bad row");
    ++ends_.by_outcome[static_cast<int>(outcome)];
  }

  // False once the pipeline is closed.
  template <typename Step>
  bool attempt(const Step& step) {
    try {
      step();
    } catch (const FullError&) {
      ++ends_.rejected;
    } catch (const ClosedError&) {
      return false;
    }
    return true;
  }

  void call(int seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    while (attempt([&] {
      const Draw draw = Stress::draw(random);
      const auto request = pipeline_.infer(draw.value, draw.rows, draw.timeout);
      ++ends_.accepted;
      end(*request, draw.value);
    })) {
    }
  }

  void submit(int seed) {
    std::mt19937 random(static_cast<unsigned>(seed) + 100);
    while (attempt([&] {
      if (random() % 8 == 0) {
        const Claim abandoned = pipeline_.pipeline->claim(2, {}, 0);
        if (random() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
        return;
      }
      const Draw draw = Stress::draw(random);
      // The reader finds the value in the cookie, which is set before anyone else knows the
      // request.
      Claim claim = pipeline_.pipeline->claim(std::min(draw.rows, 8u), {}, 0);
      AddOnePipeline::fill(claim, draw.value);
      const auto request = pipeline_.pipeline->make_request(claim.rows(), true);
      if (draw.timeout != kNever) request->deadline = request->arrival + draw.timeout;
      request->notifier = notifier_;
      request->cookie = std::make_shared<float>(draw.value);
      pipeline_.pipeline->publish(std::move(claim), request, 0, 0, random() % 8 != 0);
      ++ends_.accepted;
      if (request->deadline != kNever) pipeline_.pipeline->watch_deadline(request);
      if (random() % 4 == 0) pipeline_.pipeline->cancel(request);
      if (random() % 16 == 0) pipeline_.pipeline->wake();
    })) {
    }
  }

  void read() {
    std::vector<std::shared_ptr<Request>> ended;
    while (notifier_->wait()) {
      notifier_->drain(ended);
      for (const auto& request : ended) {
        const auto value = std::static_pointer_cast<float>(std::move(request->cookie));
        CHECK(value != nullptr);  // null: it was handed out before
        end(*request, *value);
      }
      ended.clear();
    }
  }

  void check_counters() {
    const Stats& stats = pipeline_.pipeline->stats();
    std::uint64_t ended = 0;
    for (const auto& count : ends_.by_outcome) ended += count;
    CHECK(ended == ends_.accepted && ended == stats.accepted);
    CHECK(stats.completed == ends_.of(Outcome::kCompleted));
    CHECK(stats.failed == ends_.of(Outcome::kFailed));
    CHECK(stats.expired == ends_.of(Outcome::kExpired));
    CHECK(stats.cancelled == ends_.of(Outcome::kCancelled));
    CHECK(stats.closed == ends_.of(Outcome::kClosed));
    CHECK(stats.rejected == ends_.rejected);
    CHECK(stats.total.count() == stats.completed + stats.failed);
    const auto left = pipeline_.pipeline->occupancy();
    CHECK(left.free == 48 && left.published == 0 && left.lanes_busy == 0);
  }

  AddOnePipeline pipeline_;
  std::shared_ptr<Notifier> notifier_ = std::make_shared<Notifier>();
  Ends ends_;
};

/// Its parts end at about the same time, on two lanes.
void request_fails_with_any_of_its_parts() {
  const AddOnePipeline pipeline({.capacity = 48, .lanes = 2, .max_batch_size = 1});
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int n = 0; n < 20'000; ++n) {
        try {
          CHECK(pipeline.infer(kBad, 2)->outcome() == Outcome::kFailed);
        } catch (const FullError&) {
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  pipeline.pipeline->close(true);
}

}  // namespace

int main() {
  request_fails_with_any_of_its_parts();
  std::uint64_t totals[6] = {};
  for (const bool drain : {true, false}) {
    for (const Nanoseconds max_delay : {0, 200'000}) {
      for (const std::uint32_t lanes : {1u, 2u}) {
        for (const Nanoseconds target : {Nanoseconds{0}, Nanoseconds{2'000'000}, kNever}) {
          Stress stress(lanes, max_delay, target);
          stress.run(200, drain);
          for (int i = 0; i < 6; ++i) totals[i] += stress.ends().by_outcome[i];
        }
      }
    }
  }
  std::printf(
      "completed %llu, failed %llu, expired %llu, cancelled %llu, closed %llu\n",
      static_cast<unsigned long long>(totals[1]), static_cast<unsigned long long>(totals[2]),
      static_cast<unsigned long long>(totals[3]), static_cast<unsigned long long>(totals[4]),
      static_cast<unsigned long long>(totals[5]));
  for (int i = 1; i < 5; ++i) CHECK(totals[i] > 0);
  CHECK(Request::alive() == 0 && Pipeline::alive() == 0);
}
