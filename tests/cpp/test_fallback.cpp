// A backend that dies in mid-flight, and the one that takes its requests over.
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"
#include "pipeline/fallback_executor.hpp"

using namespace trtinfer::pipeline;

namespace {

constexpr int kQueued = 500;

/// Adds one until it is broken: then it leaves wrong answers behind and throws.
class Breakable : public AddOne {
 public:
  TransferTimes run(const Batch& batch) override {
    const TransferTimes times = AddOne::run(batch);
    if (!broken) return times;
    for (const BatchUnit& unit : batch.units) {
      std::byte* to = unit.request->output(0, outputs()[0], {kWidth}, true);
      std::memset(to + unit.first_row * kRowBytes, 0x7f, unit.rows * kRowBytes);
    }
    if (mixed) throw BatchError("it is mixed");
    throw ExecutionError("it broke");
  }
  std::string refusal(const std::vector<Shape>&) const override { return "too narrow"; }

  std::atomic<bool> broken{false};
  bool mixed = false;
};

/// A pipeline over a backend that breaks and one that does not.
struct Pair {
  std::shared_ptr<Breakable> first = std::make_shared<Breakable>();
  std::shared_ptr<AddOne> second = std::make_shared<AddOne>();
  std::atomic<int> seconds_made{0};
  std::vector<std::string> reports;
  std::shared_ptr<FallbackExecutor> both = std::make_shared<FallbackExecutor>(
      first,
      [this] {
        ++seconds_made;
        return second;
      },
      [this](const std::string& reason) { reports.push_back(reason); });
};

void needs_no_second_while_the_first_works() {
  Pair pair;
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4}, pair.first, pair.both);
  CHECK(is_answer(*p.infer(3), 3));
  CHECK(!pair.both->has_failed() && pair.seconds_made == 0 && pair.reports.empty());
}

void answers_all_that_was_queued_when_it_broke() {
  Pair pair;
  const AddOnePipeline p({.capacity = 512, .lanes = 2, .max_batch_size = 8}, pair.first, pair.both);
  const auto notifier = std::make_shared<Notifier>();
  std::vector<std::shared_ptr<Request>> requests, ended;
  p.executor->close_gate();
  for (int i = 0; i < kQueued; ++i) requests.push_back(p.publish(float(i), 1, notifier));
  p.executor->wait_until_running(2);
  pair.first->broken = true;
  p.executor->open_gate();
  p.pipeline->close(true);
  for (int i = 0; i < kQueued; ++i) {
    CHECK(requests[i]->outcome() == Outcome::kCompleted && is_answer(*requests[i], float(i)));
  }
  notifier->drain(ended);
  CHECK(ended.size() == kQueued);
  CHECK(p.pipeline->stats().completed == kQueued && p.pipeline->stats().failed == 0);
  CHECK(pair.both->has_failed() && pair.seconds_made == 1);
  CHECK(pair.reports == std::vector<std::string>{"it broke"});
}

void stays_with_the_second() {
  Pair pair;
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4}, pair.first, pair.both);
  pair.first->broken = true;
  CHECK(is_answer(*p.infer(1), 1));
  pair.first->broken = false;
  pair.first->last_thread = std::thread::id();
  CHECK(is_answer(*p.infer(2), 2));
  CHECK(pair.first->last_thread.load() == std::thread::id());
}

void fails_bad_requests_alone_on_the_second() {
  Pair pair;
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4}, pair.first, pair.both);
  pair.first->broken = true;
  CHECK(p.infer(kBad)->outcome() == Outcome::kFailed);
  CHECK(is_answer(*p.infer(1), 1));
}

void keeps_a_backend_that_only_one_batch_is_wrong_for() {
  Pair pair;
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4}, pair.first, pair.both);
  pair.first->broken = pair.first->mixed = true;
  const auto request = p.infer(1);
  CHECK(request->outcome() == Outcome::kFailed && request->error() == "it is mixed");
  CHECK(!pair.both->has_failed() && pair.seconds_made == 0);
}

void asks_the_backend_in_use_what_it_takes() {
  Pair pair;
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4}, pair.first, pair.both);
  CHECK(pair.both->refusal({{1, 2}}) == "too narrow");
  pair.first->broken = true;
  CHECK(is_answer(*p.infer(1), 1));
  CHECK(pair.both->refusal({{1, 2}}).empty());
}

void says_both_reasons_when_there_is_no_second() {
  const auto first = std::make_shared<Breakable>();
  first->broken = true;
  const auto both = std::make_shared<FallbackExecutor>(
      first, []() -> std::shared_ptr<Executor> { throw ExecutionError("no model"); },
      [](const std::string&) { CHECK(false); });
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4}, first, both);
  const auto request = p.infer(1);
  CHECK(request->outcome() == Outcome::kFailed && !both->has_failed());
  CHECK(request->error() == "it broke; and the fallback cannot be opened: no model");
  first->broken = false;
  CHECK(is_answer(*p.infer(1), 1));
}

}  // namespace

int main() {
  needs_no_second_while_the_first_works();
  answers_all_that_was_queued_when_it_broke();
  stays_with_the_second();
  fails_bad_requests_alone_on_the_second();
  keeps_a_backend_that_only_one_batch_is_wrong_for();
  asks_the_backend_in_use_what_it_takes();
  says_both_reasons_when_there_is_no_second();
  CHECK(Request::alive() == 0 && Pipeline::alive() == 0);
}
