// The way of single requests through a pipeline; `test_pipeline_stress` has many at once.
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"
#include "pipeline/pipeline.hpp"

using namespace trtinfer::pipeline;
using trtinfer::ring::kNever;
using trtinfer::ring::Nanoseconds;

namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

bool readable(const Notifier& notifier) {
  pollfd poll{notifier.descriptor(), POLLIN, 0};
  return ::poll(&poll, 1, 0) == 1;
}

// --- Callers that wait

void answers_a_lone_caller_on_its_own_thread() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4});
  const auto request = p.infer(3);
  CHECK(request->outcome() == Outcome::kCompleted && is_answer(*request, 3));
  CHECK(p.executor->last_thread.load() == std::this_thread::get_id());
}

void answers_a_caller_with_a_deadline() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4});
  const auto request = p.infer(3, 2, 10'000 * kMillisecond);
  CHECK(request->outcome() == Outcome::kCompleted && is_answer(*request, 3));
}

void answers_a_caller_who_waits_for_company() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4, .max_delay = 5 * kMillisecond});
  const auto request = p.infer(3);
  CHECK(request->outcome() == Outcome::kCompleted && is_answer(*request, 3));
  CHECK(trtinfer::ring::now() - request->arrival >= 5 * kMillisecond);
}

void lets_followers_share_the_next_batch() {
  const AddOnePipeline p({.capacity = 16, .max_batch_size = 8});
  p.executor->close_gate();
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i) {
    callers.emplace_back([&, i] {
      const auto request = p.infer(static_cast<float>(i));
      CHECK(request->outcome() == Outcome::kCompleted &&
            is_answer(*request, static_cast<float>(i)));
    });
    if (i == 0) p.executor->wait_until_running(1);
  }
  while (p.pipeline->occupancy().published != 5) std::this_thread::yield();
  p.executor->open_gate();
  for (std::thread& caller : callers) caller.join();
  CHECK(p.pipeline->stats().batches == 2 && p.pipeline->stats().batch_sizes[5] == 1);
}

void expires_a_caller_whose_batch_is_late() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  p.executor->close_gate();
  const auto first = p.infer(1, 1, 100 * kMillisecond);   // launched, not answered
  const auto second = p.infer(1, 1, 100 * kMillisecond);  // not launched
  CHECK(first->launched && first->outcome() == Outcome::kExpired);
  CHECK(!second->launched && second->outcome() == Outcome::kExpired);
  p.executor->open_gate();
  CHECK(p.infer(1)->outcome() == Outcome::kCompleted);
  CHECK(p.pipeline->stats().expired == 2 && p.pipeline->stats().completed == 1);
}

void joins_the_parts_of_a_large_request() {
  for (const bool shape_known : {true, false}) {
    const AddOnePipeline p({.capacity = 32, .lanes = 3, .max_batch_size = 4}, shape_known);
    for (int i = 0; i < 200; ++i) {
      const auto request = p.infer(static_cast<float>(i), 19);
      CHECK(request->outcome() == Outcome::kCompleted);
      CHECK(is_answer(*request, static_cast<float>(i)));
    }
    CHECK(p.pipeline->stats().completed == 200);
  }
}

void counts_a_request_before_its_caller_returns() {
  const AddOnePipeline p({.capacity = 64, .lanes = 2, .max_batch_size = 4});
  std::atomic<std::uint64_t> returned{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        p.infer(1);
        const std::uint64_t before = ++returned;
        CHECK(p.pipeline->stats().completed >= before);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// --- Room

void gives_dropped_claims_back() {
  const AddOnePipeline p({.capacity = 2, .max_batch_size = 2});
  for (int i = 0; i < 5; ++i) {
    Claim claim = p.pipeline->claim(2, {}, 0);
    CHECK(claim.held() && p.pipeline->occupancy().free == 0);
    Claim moved = std::move(claim);
    CHECK(!claim.held());  // NOLINT(bugprone-use-after-move): that is the question
  }
  CHECK(p.pipeline->occupancy().free == 2 && p.pipeline->stats().accepted == 0);
}

void refuses_when_full_and_counts_it() {
  const AddOnePipeline p({.capacity = 2, .max_batch_size = 2});
  const Claim held = p.pipeline->claim(2, {}, 0);
  CHECK_THROWS(p.pipeline->claim(1, {}, 0), FullError);
  CHECK_THROWS(p.pipeline->claim(1, {}, trtinfer::ring::now() + kMillisecond), FullError);
  CHECK(!p.pipeline->try_claim(1, {}));
  CHECK(p.pipeline->stats().rejected == 2);
}

void refuses_what_can_never_fit() {
  const std::vector<TensorSpec> inputs{{"x", ElementType::kFloat32, {-1, 2}}};
  const auto pipeline = std::make_shared<Pipeline>(
      std::make_shared<AddOne>(), inputs,
      trtinfer::ring::RingOptions{.capacity = 4, .arena_bytes = 1024, .max_batch_size = 4});
  CHECK_THROWS(pipeline->claim(1, {{1, 1000}}, kNever), UnfitError);
  CHECK(pipeline->claim(1, {{1, 2}}, 0).held());
}

// --- Failures, cancels, deadlines

void tells_transfers_from_compute() {
  const AddOnePipeline p({.capacity = 8, .lanes = 1, .max_batch_size = 4});
  p.executor->transfers = {3'000'000, 1'000'000};
  p.executor->delay = std::chrono::milliseconds(10);
  p.infer(1, 4);
  p.infer(1);
  const Stats& stats = p.pipeline->stats();
  CHECK(stats.input.sum() == 6'000'000 && stats.output.sum() == 2'000'000);
  CHECK(stats.compute.sum() >= 12'000'000 && stats.compute.count() == 2);
  CHECK(stats.batch_input[4] == 3'000'000 && stats.batch_output[1] == 1'000'000);
  CHECK(stats.total.sum() >= stats.compute.sum() + 8'000'000);
}

void fails_a_bad_request_alone() {
  const AddOnePipeline p({.capacity = 16, .max_batch_size = 8});
  const auto notifier = std::make_shared<Notifier>();
  p.executor->close_gate();
  const auto first = p.publish(1, 1, notifier);
  p.executor->wait_until_running(1);
  std::vector<std::shared_ptr<Request>> requests;
  for (const float value : {1.0f, 2.0f, kBad, 4.0f})
    requests.push_back(p.publish(value, 1, notifier));
  p.executor->open_gate();
  p.pipeline->close(true);
  CHECK(requests[2]->outcome() == Outcome::kFailed && requests[2]->error() == "a bad row");
  for (const int i : {0, 1, 3}) CHECK(requests[i]->outcome() == Outcome::kCompleted);
  CHECK(is_answer(*requests[3], 4));
  CHECK(p.pipeline->stats().failed == 1 && p.pipeline->stats().retried == 4);
}

void cancels_what_is_not_launched() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  const auto notifier = std::make_shared<Notifier>();
  p.executor->close_gate();
  const auto running = p.publish(1, 1, notifier);
  p.executor->wait_until_running(1);
  const auto waiting = p.publish(2, 1, notifier);
  CHECK(!p.pipeline->cancel(running) && p.pipeline->cancel(waiting));
  CHECK(!p.pipeline->cancel(waiting) && waiting->outcome() == Outcome::kCancelled);
  CHECK(readable(*notifier));
  p.executor->open_gate();
  p.pipeline->close(true);
  CHECK(running->outcome() == Outcome::kCompleted && p.pipeline->stats().cancelled == 1);
}

void expires_a_request_that_nobody_waits_for() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  const auto notifier = std::make_shared<Notifier>();
  p.executor->close_gate();
  const auto running = p.publish(1, 1, notifier);
  p.executor->wait_until_running(1);
  const auto late = p.publish(2, 1, notifier, 50 * kMillisecond);
  const auto sooner = p.publish(3, 1, notifier, 5 * kMillisecond);
  std::vector<std::shared_ptr<Request>> ended;
  CHECK(notifier->wait());
  notifier->drain(ended);
  CHECK(ended.size() == 1 && ended[0] == sooner && sooner->outcome() == Outcome::kExpired);
  CHECK(notifier->wait());
  notifier->drain(ended);
  CHECK(ended.size() == 1 && ended[0] == late);
  CHECK(p.pipeline->occupancy().published == 0);
  p.executor->open_gate();
}

void forgets_an_answered_request_before_its_deadline() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 1});
  const auto notifier = std::make_shared<Notifier>();
  for (int i = 0; i < 3; ++i) {
    p.publish(1, 1, notifier, 1000'000 * kMillisecond);
    CHECK(notifier->wait());
    std::vector<std::shared_ptr<Request>> ended;
    notifier->drain(ended);
    CHECK(ended.size() == 1 && ended[0]->outcome() == Outcome::kCompleted);
  }
  while (p.pipeline->occupancy().lanes_busy > 0) std::this_thread::yield();
  CHECK(Request::alive() == 0);
}

// --- Lanes and notifiers

void tells_a_reader_once_per_batch() {
  const AddOnePipeline p({.capacity = 16, .max_batch_size = 8});
  const auto notifier = std::make_shared<Notifier>(), other = std::make_shared<Notifier>();
  std::vector<std::shared_ptr<Request>> published, ended;
  p.executor->close_gate();
  p.publish(0, 1, other);
  p.executor->wait_until_running(1);
  for (int i = 0; i < 6; ++i) published.push_back(p.publish(static_cast<float>(i), 1, notifier));
  CHECK(!readable(*notifier));
  p.executor->open_gate();
  CHECK(notifier->wait() && readable(*notifier));
  notifier->drain(ended);
  CHECK(ended == published && !readable(*notifier));
  CHECK(other->wait());
}

void ends_the_wait_of_a_stopped_reader() {
  Notifier notifier;
  std::thread reader([&] { CHECK(!notifier.wait()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  notifier.stop();
  reader.join();
  notifier.add(std::make_shared<Request>(1, true));
  CHECK(notifier.wait());  // what ended before the stop is still handed out
  std::vector<std::shared_ptr<Request>> ended;
  notifier.drain(ended);
  CHECK(ended.size() == 1 && !notifier.wait());
}

void one_wake_up_reaches_every_lane() {
  const AddOnePipeline p({.capacity = 8, .lanes = 3, .max_batch_size = 1});
  p.executor->close_gate();
  std::vector<std::shared_ptr<Request>> requests;
  for (int i = 0; i < 3; ++i) {
    requests.push_back(p.pipeline->make_request(1, true));
    Claim claim = p.pipeline->claim(1, {}, 0);
    AddOnePipeline::fill(claim, 1);
    p.pipeline->publish(std::move(claim), requests.back(), 0, 0, false);
  }
  p.pipeline->wake();
  p.executor->wait_until_running(3);
  p.executor->open_gate();
  for (const auto& request : requests) {
    p.pipeline->wait(request);
    CHECK(request->outcome() == Outcome::kCompleted);
  }
}

// --- Closing

void answers_all_before_it_closes() {
  const AddOnePipeline p({.capacity = 64, .lanes = 2, .max_batch_size = 4});
  const auto notifier = std::make_shared<Notifier>();
  p.executor->delay = std::chrono::microseconds(500);
  std::vector<std::shared_ptr<Request>> requests;
  for (int i = 0; i < 40; ++i) requests.push_back(p.publish(1, 1, notifier));
  p.pipeline->close(true);
  for (const auto& request : requests) CHECK(request->outcome() == Outcome::kCompleted);
}

void ends_what_is_not_launched_when_closed_at_once() {
  const AddOnePipeline p({.capacity = 64, .max_batch_size = 4});
  const auto notifier = std::make_shared<Notifier>();
  p.executor->close_gate();
  const auto running = p.publish(1, 1, notifier);
  p.executor->wait_until_running(1);
  const auto waiting = p.publish(2, 3, notifier);
  std::thread closer([&] { p.pipeline->close(false); });
  while (!waiting->done()) std::this_thread::yield();
  CHECK(waiting->outcome() == Outcome::kClosed && !running->done());
  p.executor->open_gate();
  closer.join();
  CHECK(running->outcome() == Outcome::kCompleted);
}

void refuses_after_it_closed() {
  const AddOnePipeline p({.capacity = 4, .max_batch_size = 4});
  Claim claim = p.pipeline->claim(1, {}, 0);
  const auto request = p.pipeline->make_request(1, true);
  p.pipeline->close(true);
  p.pipeline->close(false);
  CHECK(p.pipeline->closed());
  CHECK_THROWS(p.pipeline->claim(1, {}, kNever), ClosedError);
  bool refused = false;
  try {
    p.pipeline->publish(std::move(claim), request, 0, 0, true);
  } catch (const ClosedError&) {
    refused = true;
  }
  CHECK(refused && claim.held() && p.pipeline->stats().accepted == 0);
}

void does_not_close_between_the_parts_of_a_request() {
  const AddOnePipeline pipeline({.capacity = 8, .lanes = 1, .max_batch_size = 4});
  const auto request = pipeline.pipeline->make_request(8, true);
  request->units_left = 2;
  std::atomic<bool> closed{false};
  std::thread closer;
  {
    const Pipeline::ClosingHold hold(*pipeline.pipeline);
    Claim first = pipeline.pipeline->claim(4, {}, 0);
    AddOnePipeline::fill(first, 1);
    pipeline.pipeline->publish(std::move(first), request, 0, 0, true);
    closer = std::thread([&] {
      pipeline.pipeline->close(true);
      closed = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    CHECK(!closed);
    pipeline.pipeline->abandon(request, Outcome::kClosed);
  }
  closer.join();
  CHECK(request->outcome() == Outcome::kClosed);
}

void failed_request_has_no_part_left() {
  const AddOnePipeline pipeline({.capacity = 8, .lanes = 1, .max_batch_size = 4});
  const auto request = pipeline.infer(kBad);
  CHECK(request->outcome() == Outcome::kFailed && request->units_left == 0);
}

/// Its batches need another pipeline's answer, on the same thread.
class Nested : public AddOne {
 public:
  TransferTimes run(const Batch& batch) override {
    CHECK(inner_.infer(5)->outcome() == Outcome::kCompleted);
    return AddOne::run(batch);
  }

 private:
  AddOnePipeline inner_{{.capacity = 8, .lanes = 1, .max_batch_size = 4}};
};

void answers_within_a_batch() {
  const AddOnePipeline pipeline({.capacity = 8, .lanes = 1, .max_batch_size = 4},
                                std::make_shared<Nested>(), nullptr);
  CHECK(is_answer(*pipeline.infer(1), 1));
}

void leads_no_longer_than_it_may_wait() {
  const AddOnePipeline pipeline({.capacity = 64, .lanes = 1, .max_batch_size = 1});
  pipeline.executor->delay = std::chrono::milliseconds(10);
  std::vector<std::shared_ptr<Request>> before;
  for (int i = 0; i < 50; ++i) before.push_back(pipeline.publish(1));
  const auto last = pipeline.publish(2);
  const Nanoseconds start = trtinfer::ring::now();
  CHECK(!pipeline.pipeline->wait(last, start + 50'000'000));
  CHECK(trtinfer::ring::now() - start < 300'000'000);
  pipeline.pipeline->close(true);
}

}  // namespace

int main() {
  answers_a_lone_caller_on_its_own_thread();
  answers_a_caller_with_a_deadline();
  answers_a_caller_who_waits_for_company();
  lets_followers_share_the_next_batch();
  expires_a_caller_whose_batch_is_late();
  joins_the_parts_of_a_large_request();
  counts_a_request_before_its_caller_returns();
  gives_dropped_claims_back();
  refuses_when_full_and_counts_it();
  refuses_what_can_never_fit();
  tells_transfers_from_compute();
  fails_a_bad_request_alone();
  cancels_what_is_not_launched();
  expires_a_request_that_nobody_waits_for();
  forgets_an_answered_request_before_its_deadline();
  tells_a_reader_once_per_batch();
  ends_the_wait_of_a_stopped_reader();
  one_wake_up_reaches_every_lane();
  answers_all_before_it_closes();
  ends_what_is_not_launched_when_closed_at_once();
  refuses_after_it_closed();
  does_not_close_between_the_parts_of_a_request();
  failed_request_has_no_part_left();
  answers_within_a_batch();
  leads_no_longer_than_it_may_wait();
  CHECK(Request::alive() == 0 && Pipeline::alive() == 0);
}
