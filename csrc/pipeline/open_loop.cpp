#include "pipeline/open_loop.hpp"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

namespace trtinfer::pipeline {

using ring::Nanoseconds;

namespace {

// Waking from a sleep takes up to this long; the rest of a wait is spent looking at the clock.
constexpr Nanoseconds kSpin = 30'000;

// So that `stop` is heard during a long wait.
constexpr Nanoseconds kLongestSleep = 50'000'000;

// A thread copies some gigabytes a second: requests from here on want several.
constexpr std::size_t kLargeRequest = 1 << 16;
constexpr std::size_t kMostSenders = 4;

// Each spins before it sends: the server keeps most of the cores.
std::size_t senders_for(const std::vector<Sample>& samples) {
  std::size_t largest = 0;
  for (const Sample& sample : samples) {
    largest = std::max(largest, std::reduce(sample.bytes.begin(), sample.bytes.end()));
  }
  if (largest < kLargeRequest) return 1;
  return std::clamp<std::size_t>(std::thread::hardware_concurrency() / 4, 1, kMostSenders);
}

void sleep_until(Nanoseconds time) {
  const timespec until{time / 1'000'000'000, time % 1'000'000'000};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

}  // namespace

OpenLoop::OpenLoop(std::shared_ptr<Pipeline> pipeline, std::vector<Sample> samples,
                   std::vector<Nanoseconds> arrivals, Terms terms)
    : pipeline_(std::move(pipeline)),
      samples_(std::move(samples)),
      arrivals_(std::move(arrivals)),
      terms_(std::move(terms)),
      senders_(terms_.senders > 0 ? terms_.senders : senders_for(samples_)),
      notifier_(std::make_shared<Notifier>()),
      latencies_(arrivals_.size(), kUnsent),
      lateness_(arrivals_.size(), 0) {
  if (samples_.empty() || terms_.priorities.empty()) {
    throw std::invalid_argument("an open loop needs a sample to send, and a priority");
  }
  if (!std::is_sorted(arrivals_.begin(), arrivals_.end())) {
    throw std::invalid_argument("arrivals must ascend");
  }
}

void OpenLoop::run() {
  std::thread collector([this] { collect(); });
  start_ = ring::now();
  {
    std::vector<std::jthread> others;  // joined at the end
    std::size_t senders = senders_;
    while (others.size() + 1 < senders) {
      try {
        others.emplace_back([this] { send(); });
      } catch (const std::system_error&) {
        senders = others.size() + 1;  // no more threads for this process: fewer will do
      }
    }
    send();
  }
  await_all();
  elapsed_ = ring::now() - start_;
  notifier_->stop();
  collector.join();
  if (error_) std::rethrow_exception(error_);
}

void OpenLoop::send() {
  // Nanoseconds, and back; the default lets every sleep last 50 us longer.
  const int slack = prctl(PR_GET_TIMERSLACK);
  prctl(PR_SET_TIMERSLACK, 1);
  try {
    publish_all();
  } catch (...) {
    stop();
    const std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
  }
  prctl(PR_SET_TIMERSLACK, slack);
}

void OpenLoop::publish_all() {
  for (std::size_t i = next_++; i < arrivals_.size(); i = next_++) {
    const Nanoseconds arrival = start_ + arrivals_[i];
    if (!await(arrival)) return;
    publish(i, arrival);
    sent_.fetch_add(1, std::memory_order_relaxed);
  }
}

// False: stopped meanwhile.
bool OpenLoop::await(Nanoseconds arrival) const {
  for (Nanoseconds now = ring::now(); now < arrival && !stopped_; now = ring::now()) {
    if (arrival - now > kSpin) {
      sleep_until(std::min(arrival - kSpin, now + kLongestSleep));
    } else {
      ring::pause();
    }
  }
  return !stopped_;
}

void OpenLoop::publish(std::size_t index, Nanoseconds arrival) {
  const Sample& sample = samples_[index % samples_.size()];
  const bool expires = terms_.timeout != ring::kNever;
  const Nanoseconds deadline = expires ? arrival + terms_.timeout : ring::kNever;
  try {
    Claim claim =
        pipeline_->claim(sample.rows, sample.shapes, terms_.waits_for_room ? deadline : 0);
    for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
      fill_slot(claim.filling(i, sample.inputs[i], sample.bytes[i]));
    }
    const auto request = pipeline_->make_request(sample.rows, sample.has_batch_axis);
    request->arrival = arrival;
    request->deadline = deadline;
    request->notifier = notifier_;
    request->cookie = {std::shared_ptr<void>(), &latencies_[index]};
    const int priority = terms_.priorities[index % terms_.priorities.size()];
    pipeline_->publish(std::move(claim), request, 0, priority, true);
    ++accepted_;
    if (expires) pipeline_->watch_deadline(request);
  } catch (const FullError&) {
    latencies_[index] = kRefused;
  }
  lateness_[index] = ring::now() - arrival;
}

void OpenLoop::collect() {
  std::vector<std::shared_ptr<Request>> requests;
  while (notifier_->wait()) {
    notifier_->drain(requests);
    const Nanoseconds now = ring::now();
    for (const std::shared_ptr<Request>& request : requests) {
      const bool answered = request->outcome() == Outcome::kCompleted;
      *static_cast<Nanoseconds*>(request->cookie.get()) =
          answered ? now - request->arrival : kFailed;
    }
    ended_.fetch_add(requests.size(), std::memory_order_release);
    requests.clear();
    progress_.wake();
  }
}

void OpenLoop::await_all() {
  for (;;) {
    const std::uint32_t seen = progress_.value();
    if (ended_.load(std::memory_order_acquire) == accepted_) return;
    progress_.wait(seen);
  }
}

}  // namespace trtinfer::pipeline
