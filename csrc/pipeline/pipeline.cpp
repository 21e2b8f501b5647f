#include "pipeline/pipeline.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <thread>
#include <utility>

#include "pipeline/own_thread.hpp"
#include "pipeline/process.hpp"

namespace trtinfer::pipeline {

using ring::kNever;
using ring::Nanoseconds;

std::atomic<std::int64_t> Pipeline::alive_{0};

Pipeline::Pipeline(std::shared_ptr<Executor> executor, std::vector<TensorSpec> inputs,
                   const ring::RingOptions& options, std::shared_ptr<LatencyPolicy> policy)
    : executor_(std::move(executor)),
      max_batch_size_(options.max_batch_size),
      arena_bytes_(options.arena_bytes),
      may_lead_(options.max_delay <= 0),
      process_generation_(process_generation()),
      stats_(options.max_batch_size),
      memory_(std::move(inputs), options.capacity, options.arena_bytes, executor_->gpu()),
      ring_(options),
      records_(options.capacity),
      policy_(std::move(policy)),
      reaper_(std::make_unique<Reaper>([this](const std::shared_ptr<Request>& request) {
        abandon(request, Outcome::kExpired);
      })) {
  alive_.fetch_add(1, std::memory_order_relaxed);
  try {
    for (std::uint32_t i = 0; i < options.lanes; ++i) {
      lanes_.emplace_back([this] { lane_loop(); });
    }
  } catch (...) {  // no more threads: those that run must not outlive their memory
    close(false);
    alive_.fetch_sub(1, std::memory_order_relaxed);
    throw;
  }
}

Pipeline::~Pipeline() {
  alive_.fetch_sub(1, std::memory_order_relaxed);
  if (process_generation_ == process_generation()) {
    close(false);
    return;
  }
  // A forked child has none of the threads: joining them, or the backend's own, would never end.
  new std::vector<std::thread>(std::move(lanes_));
  new std::shared_ptr<Executor>(executor_);
  [[maybe_unused]] const Reaper* left_running = reaper_.release();
}

void Pipeline::check_process() const {
  if (process_generation_ == process_generation()) return;
  throw ClosedError(
      "this session was opened before the process forked, and its threads do not exist in the "
      "child: open a session after the fork");
}

std::optional<Claim> Pipeline::try_claim(std::uint32_t rows, const std::vector<Shape>& shapes,
                                         Nanoseconds deadline) {
  check_process();
  const std::uint64_t bytes = memory_.unit_bytes(shapes);
  if (bytes > arena_bytes_) {
    throw UnfitError("a request of " + std::to_string(bytes) + " bytes can never fit the " +
                     std::to_string(arena_bytes_) + " bytes of arena_bytes=: raise it");
  }
  if (!memory_.is_static()) {
    const std::string refusal = executor_->refusal(shapes);
    if (!refusal.empty()) throw UnfitError(refusal);
  }
  ring::Unit unit;
  const ring::ClaimStatus status = ring_.claim(rows, bytes, deadline, unit);
  if (status == ring::ClaimStatus::kClosed) throw ClosedError("the session is closed");
  if (status == ring::ClaimStatus::kFull) return std::nullopt;
  UnitRecord& record = records_[unit.slot];
  record.device_inputs.clear();
  if (!memory_.is_static()) record.shapes = shapes;
  memory_.locate(ring_, unit, record.shapes, record.inputs);
  return Claim(shared_from_this(), unit);
}

Claim Pipeline::claim(std::uint32_t rows, const std::vector<Shape>& shapes, Nanoseconds deadline) {
  std::optional<Claim> claim = try_claim(rows, shapes, deadline);
  if (claim) return std::move(*claim);
  stats_.rejected.fetch_add(1, std::memory_order_relaxed);
  throw FullError(
      "no room for the request: " + std::to_string(ring_.capacity() - ring_.occupancy().free) +
      " of " + std::to_string(ring_.capacity()) +
      " slots are taken; wait with timeout=, raise capacity= (or arena_bytes= for "
      "large inputs), or send less");
}

std::shared_ptr<Request> Pipeline::make_request(std::uint32_t rows, bool has_batch_axis) {
  std::shared_ptr<Request> request = Request::make(rows, has_batch_axis);
  if (executor_->keeps_outputs()) {
    request->outputs.resize(executor_->outputs().size());
  } else {
    request->allocate_outputs(executor_->outputs());
  }
  request->arrival = ring::now();
  return request;
}

void Pipeline::publish(Claim&& claim, const std::shared_ptr<Request>& request,
                       std::uint32_t first_row, int priority, bool wake) {
  check_process();
  if (priority < ring::kLowestPriority || priority > ring::kHighestPriority) {
    throw std::invalid_argument("priority=" + std::to_string(priority) + " is not in -8 to 7");
  }
  if (first_row == 0 && policy_ != nullptr && policy_->target() != kNever) check_target(*request);
  const ring::Unit unit = claim.unit_;
  UnitRecord& record = records_[unit.slot];
  record.request = request;
  record.first_row = first_row;
  request->units.push_back(unit);
  if (first_row == 0) request->wait_word = expected_batch() % kWaitWords;
  if (first_row == 0) stats_.accepted.fetch_add(1, std::memory_order_relaxed);
  const ring::Schedule schedule{priority, request->arrival, request->deadline,
                                executor_->batch_key(record.shapes)};
  if (!ring_.publish(unit, schedule, wake && !holds())) {
    record.request.reset();
    if (first_row == 0) stats_.accepted.fetch_sub(1, std::memory_order_relaxed);
    throw ClosedError("the session is closed");
  }
  claim.pipeline_.reset();
}

std::uint32_t Pipeline::expected_batch() const {
  return forming_.load(std::memory_order_relaxed) + ring_.published() / max_batch_size_;
}

Pipeline::Runner& Pipeline::this_threads_runner() {
  thread_local Runner runner;
  return runner;
}

bool Pipeline::wait(const std::shared_ptr<Request>& request, Nanoseconds until) {
  // A batch cannot be interrupted, so a caller with a deadline follows and never leads.
  if (may_lead_ && request->deadline == kNever && !this_threads_runner().busy) {
    while (!request->done() && ring::now() < until && run_one(this_threads_runner(), false)) {
    }
    if (policy_ != nullptr && !request->done()) wake();  // the policy holds it for company
  } else {
    wake();
  }
  ring::WaitWord& word = wait_words_[request->wait_word];
  for (;;) {
    const std::uint32_t seen = word.value();
    if (request->done()) return true;
    const Nanoseconds now = ring::now();
    if (request->deadline <= now) {
      abandon(request, Outcome::kExpired);
      continue;
    }
    if (until <= now) return false;
    word.wait(seen, std::min(request->deadline, until));
  }
}

void Pipeline::wake() {
  if (ring_.published() > 0 && !holds()) ring_.work().wake(1);
}

bool Pipeline::holds() const {
  return policy_ != nullptr && ring::now() < held_until_.load(std::memory_order_relaxed) &&
         ring_.published() < held_below_.load(std::memory_order_relaxed);
}

void Pipeline::check_target(Request& request) {
  const std::uint32_t queued = ring_.published();
  request.predicted = policy_->predict(request.arrival, queued, request.rows);
  if (policy_->admits(request.arrival, queued, request.rows)) return;
  stats_.rejected.fetch_add(1, std::memory_order_relaxed);
  stats_.rejected_by_slo.fetch_add(1, std::memory_order_relaxed);
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(),
                "the request would be answered in about %.3g ms, later than latency_slo=%g allows: "
                "send less at a time, or to another machine",
                static_cast<double>(request.predicted + policy_->margin()) * 1e-6,
                static_cast<double>(policy_->target()) * 1e-9);
  throw FullError(text.data());
}

Nanoseconds Pipeline::time_batch(std::uint32_t rows, const std::vector<Shape>& shapes) {
  const std::uint32_t each = memory_.is_static() ? rows : 1;
  std::vector<Claim> claims;
  std::vector<std::shared_ptr<Request>> requests;
  std::vector<BatchUnit> units;
  for (std::uint32_t row = 0; row < rows; row += each) {
    std::optional<Claim> room = try_claim(each, shapes, 0);
    if (!room) throw FullError("no room for a batch of " + std::to_string(rows));
    const Claim& claim = claims.emplace_back(std::move(*room));
    Request& request = *requests.emplace_back(make_request(each, each > 1));
    units.push_back({&request, each, 0, &claim.inputs(), &claim.shapes()});
  }
  const Nanoseconds start = ring::now();
  executor_->run({0, rows, units, nullptr});
  return ring::now() - start;
}

bool Pipeline::lead_briefly() {
  if (process_generation_ != process_generation() || ring_.published() == 0) return false;
  bool ran = false;
  if (may_lead_ && memory_.is_static() && !this_threads_runner().busy) {
    const Nanoseconds until = ring::now() + kBrief;
    while (slowest_lately_.load(std::memory_order_relaxed) < kBrief && ring::now() < until &&
           run_one(this_threads_runner(), true, false)) {
      ran = true;
    }
  }
  wake();
  return ran;
}

bool Pipeline::run_one(Runner& runner, bool continues, bool shares) {
  const bool taken = take(runner.taken);
  resolve_expired(runner.taken);
  if (!taken) return false;
  if (runner.taken.more && shares) ring_.work().wake(1);
  runner.busy = true;
  execute(runner);
  runner.busy = false;
  ring_.finish(runner.taken.lane, continues);
  return true;
}

bool Pipeline::take(ring::TakenBatch& taken) {
  const Nanoseconds now = ring::now();
  if (policy_ == nullptr) return ring_.take(taken, now);
  const LaunchDecision decision = policy_->decide(now, ring_.published());
  if (!ring_.take(taken, now, decision.samples)) {
    taken.retry_at = std::min(taken.retry_at, decision.retry_at);
    return false;
  }
  policy_->launched(taken.lane, now, taken.samples);
  held_until_.store(0, std::memory_order_relaxed);
  return true;
}

void Pipeline::prepare(Runner& runner) {
  forming_.fetch_add(1, std::memory_order_relaxed);
  runner.batch.lane = runner.taken.lane;
  runner.batch.rows = runner.taken.samples;
  runner.units.clear();
  runner.requests.clear();
  const Nanoseconds launched_at = ring::now();
  for (const ring::Unit& unit : runner.taken.units) {
    UnitRecord& record = records_[unit.slot];
    record.request->launched_at.store(launched_at, std::memory_order_relaxed);
    record.request->batch_rows.store(runner.batch.rows, std::memory_order_relaxed);
    record.request->launched.store(true, std::memory_order_relaxed);
    runner.units.push_back({record.request.get(), unit.count, record.first_row, &record.inputs,
                            &record.shapes, &record.device_inputs});
    runner.requests.push_back(std::move(record.request));
  }
  runner.batch.units = runner.units;
  runner.batch.inputs_consumed = nullptr;
  if (runner.taken.crowded) {
    runner.batch.inputs_consumed = [this, &runner] { release_slots(runner); };
  }
}

void Pipeline::release_slots(Runner& runner) {
  ring_.release(runner.taken.units);
  runner.taken.units.clear();
}

std::string Pipeline::try_run(const Batch& batch) {
  const Nanoseconds start = ring::now();
  TransferTimes transfers;
  std::string error;
  try {
    transfers = executor_->run(batch);
  } catch (const std::exception& exception) {
    error = exception.what();
    if (error.empty()) error = "the backend failed without a message";
  }
  const Nanoseconds taken = ring::now() - start;
  const Nanoseconds slowest = slowest_lately_.load(std::memory_order_relaxed);
  slowest_lately_.store(std::max(taken, slowest - slowest / 4), std::memory_order_relaxed);
  stats_.record_batch(batch.rows, static_cast<std::uint32_t>(batch.units.size()), taken, transfers);
  return error;
}

void Pipeline::run_singly(Runner& runner, std::vector<std::string>& errors) {
  Batch single;
  single.lane = runner.batch.lane;
  for (const BatchUnit& unit : runner.batch.units) {
    single.rows = unit.rows;
    single.units = {&unit, 1};
    stats_.retried.fetch_add(1, std::memory_order_relaxed);
    errors.push_back(try_run(single));
  }
}

void Pipeline::execute(Runner& runner) {
  prepare(runner);
  std::vector<std::string> errors;
  const std::string error = try_run(runner.batch);
  if (!error.empty()) {
    // One bad request must not fail those beside it: each is tried alone, if its inputs are there.
    if (runner.taken.units.size() > 1) {
      run_singly(runner, errors);
    } else {
      errors.assign(runner.units.size(), error);
    }
  }
  if (policy_ != nullptr) {
    policy_->finished(runner.taken.lane, ring::now());
    held_until_.store(0, std::memory_order_relaxed);
  }
  release_slots(runner);
  complete(runner, errors);
}

void Pipeline::complete(Runner& runner, const std::vector<std::string>& errors) {
  std::uint64_t words = 0;
  const Nanoseconds finished = ring::now();
  runner.notifiers.clear();
  for (std::size_t i = 0; i < runner.requests.size(); ++i) {
    std::shared_ptr<Request>& request = runner.requests[i];
    const bool failed = !errors.empty() && !errors[i].empty();
    // One that fails ends its request before it counts as through, or the last of the others might.
    if (!failed && !request->finish_unit()) continue;
    const Outcome outcome = failed ? Outcome::kFailed : Outcome::kCompleted;
    const bool resolved = request->resolve(outcome, failed ? errors[i] : std::string(), [&] {
      request->finished_at = finished;
      count(outcome);
      stats_.queue.record(request->launched_at.load(std::memory_order_relaxed) - request->arrival);
      stats_.total.record(finished - request->arrival);
    });
    if (request->predicted > 0) policy_->answered(request->predicted, finished - request->arrival);
    if (failed) request->finish_unit();
    if (!resolved) continue;
    if (trace_log_ != nullptr) trace_log_->add(*request, finished);
    const std::shared_ptr<Notifier> notifier = std::move(request->notifier);
    if (notifier == nullptr) {
      words |= std::uint64_t{1} << request->wait_word;
      continue;
    }
    if (std::find(runner.notifiers.begin(), runner.notifiers.end(), notifier) ==
        runner.notifiers.end()) {
      runner.notifiers.push_back(notifier);
    }
    notifier->add(std::move(request));
  }
  runner.requests.clear();
  for (const auto& notifier : runner.notifiers) notifier->signal();
  runner.signals = !runner.notifiers.empty();
  runner.notifiers.clear();
  for (; words != 0; words &= words - 1) wait_words_[std::countr_zero(words)].wake();
}

void Pipeline::count(Outcome outcome) {
  std::atomic<std::uint64_t>* counters[] = {nullptr,         &stats_.completed, &stats_.failed,
                                            &stats_.expired, &stats_.cancelled, &stats_.closed};
  counters[static_cast<std::uint32_t>(outcome)]->fetch_add(1, std::memory_order_relaxed);
}

bool Pipeline::spin(std::uint32_t seen, Nanoseconds until) {
  // One lane at a time: more would take the cores from those who have work.
  if (ring::now() >= until || spinning_.exchange(true, std::memory_order_relaxed)) return false;
  const bool changed = ring_.work().spin(seen, until);
  spinning_.store(false, std::memory_order_relaxed);
  return changed;
}

void Pipeline::lane_loop() {
  mark_own_thread();
  Runner runner;
  Nanoseconds spin_until = 0;
  while (!stopping_.load(std::memory_order_acquire)) {
    const std::uint32_t seen = ring_.work().value();
    if (run_one(runner, true)) {
      // Where both share a core, who was told goes first: else its answers wait for a batch more.
      if (runner.signals) std::this_thread::yield();
      spin_until = ring::now() + kSpin;
      continue;
    }
    if (stopping_.load(std::memory_order_acquire) ||
        spin(seen, std::min(spin_until, runner.taken.retry_at))) {
      continue;
    }
    if (policy_ != nullptr && runner.taken.retry_at != kNever) {
      held_below_.store(policy_->batch_limit(), std::memory_order_relaxed);
      held_until_.store(runner.taken.retry_at, std::memory_order_relaxed);
    }
    ring_.work().wait(seen, runner.taken.retry_at);
  }
}

}  // namespace trtinfer::pipeline
