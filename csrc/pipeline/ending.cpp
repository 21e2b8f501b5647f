// How requests end without an answer: cancelled, expired, closed.
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "pipeline/notifier.hpp"
#include "pipeline/pipeline.hpp"
#include "pipeline/process.hpp"
#include "pipeline/reaper.hpp"
#include "pipeline/trace_log.hpp"

namespace trtinfer::pipeline {

using ring::kNever;

bool Pipeline::cancel(const std::shared_ptr<Request>& request) {
  if (process_generation_ != process_generation()) return false;
  const ClosingHold hold(*this);
  if (!withdraw(*request)) return false;
  end(request, Outcome::kCancelled, {});
  return request->outcome() == Outcome::kCancelled;
}

void Pipeline::abandon(const std::shared_ptr<Request>& request, Outcome outcome) {
  const ClosingHold hold(*this);
  withdraw(*request);
  end(request, outcome, {});
}

void Pipeline::watch_deadline(const std::shared_ptr<Request>& request) { reaper_->watch(request); }

bool Pipeline::withdraw(Request& request) {
  bool any = false;
  for (const ring::Unit& unit : request.units) {
    if (!ring_.withdraw(unit)) continue;
    records_[unit.slot].request.reset();
    ring_.release(unit);
    any = true;
  }
  return any;
}

void Pipeline::resolve_expired(ring::TakenBatch& taken) {
  for (const ring::Unit& unit : taken.expired) {
    const std::shared_ptr<Request> request = std::move(records_[unit.slot].request);
    end(request, Outcome::kExpired, {});
  }
  ring_.release(taken.expired);
}

void Pipeline::end(const std::shared_ptr<Request>& request, Outcome outcome,
                   const std::string& error) {
  if (!request->resolve(outcome, error, [&] { count(outcome); })) return;
  if (trace_log_ != nullptr) trace_log_->add(*request, ring::now());
  const std::shared_ptr<Notifier> notifier = std::move(request->notifier);
  if (notifier == nullptr) {
    wait_words_[request->wait_word].wake();
  } else {
    notifier->add(request);
    notifier->signal();
  }
}

Pipeline::ClosingHold::ClosingHold(Pipeline& pipeline) : pipeline_(pipeline) {
  pipeline_.holders_.fetch_add(1, std::memory_order_relaxed);
}

Pipeline::ClosingHold::~ClosingHold() {
  if (pipeline_.holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) pipeline_.unheld_.wake();
}

void Pipeline::wait_for_holds() {
  for (;;) {
    const std::uint32_t seen = unheld_.value();
    if (holders_.load(std::memory_order_acquire) == 0) return;
    unheld_.wait(seen);
  }
}

void Pipeline::flush() {
  std::vector<ring::Unit> units;
  ring_.flush(units);
  for (const ring::Unit& unit : units) {
    const std::shared_ptr<Request> request = std::move(records_[unit.slot].request);
    end(request, Outcome::kClosed, {});
  }
  ring_.release(units);
}

void Pipeline::close(bool drain) {
  if (process_generation_ != process_generation()) return;
  closed_.store(true, std::memory_order_release);
  ring_.close();
  if (!drain) flush();  // before the lock, since another thread may hold it while it drains
  std::lock_guard lock(closing_);
  if (stopping_.load(std::memory_order_acquire)) return;
  ring_.wait_idle(kNever);
  wait_for_holds();
  stopping_.store(true, std::memory_order_release);
  ring_.work().wake();
  for (std::thread& lane : lanes_) lane.join();
  lanes_.clear();
  reaper_->stop();
}

}  // namespace trtinfer::pipeline
