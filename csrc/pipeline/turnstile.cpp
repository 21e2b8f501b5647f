#include "pipeline/turnstile.hpp"

#include <algorithm>
#include <mutex>

namespace trtinfer::pipeline {

using ring::Nanoseconds;

namespace {

// What all in line may be overtaken for together.
constexpr Nanoseconds kOvertaking = 3'000'000;

}  // namespace

void Turnstile::go_out() {
  Waiter self;
  {
    const std::lock_guard lock(mutex_);
    const Nanoseconds now = ring::now();
    if (may_overtake(now) && is_free(now)) {
      out_ = true;
      since_ = now;
      return;
    }
    join(self, now);
  }
  constexpr auto kAsleep = static_cast<std::uint32_t>(State::kAsleep);
  while (self.get() == State::kAsleep) ring::futex_wait(self.state, kAsleep);
  while (!try_go(self)) {
    for (int i = 0; i < 64 && self.get() != State::kGone; ++i) ring::pause();
  }
}

void Turnstile::come_in() {
  Waiter* next = nullptr;
  {
    const std::lock_guard lock(mutex_);
    out_ = false;
    if (first_ == nullptr || first_->get() != State::kLooking) return;
    Waiter* gone = first_;
    next = pop(ring::now());
    gone->set(State::kGone);  // it lives no longer than this
  }
  wake(next);
}

// While the first in line wakes up, the lock need not lie idle. If that takes long, it is for want
// of a core, and those who overtake have one.
bool Turnstile::may_overtake(Nanoseconds now) const {
  if (first_ == nullptr) return true;
  const Nanoseconds while_waking = std::clamp(kOvertaking / waiting_, waking_ / 2, waking_);
  return first_->get() != State::kLooking && now - first_since_ <= while_waking;
}

void Turnstile::join(Waiter& self, Nanoseconds now) {
  if (first_ == nullptr) {
    make_first(&self, now);
  } else {
    last_->next = &self;
  }
  last_ = &self;
  ++waiting_;
}

bool Turnstile::try_go(Waiter& self) {
  const State state = self.get();
  if (state == State::kGone) return true;
  const Nanoseconds now = ring::now();
  if (state == State::kLooking && now - since_ <= away_) return false;
  Waiter* next = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (self.get() == State::kGone) return true;
    self.set(State::kLooking);
    if (!is_free(now)) return false;
    next = pop(now);
  }
  wake(next);
  return true;
}

Turnstile::Waiter* Turnstile::pop(Nanoseconds now) {
  out_ = true;
  since_ = now;
  --waiting_;
  make_first(first_->next, now);
  return first_;
}

void Turnstile::make_first(Waiter* first, Nanoseconds now) {
  first_ = first;
  first_since_ = now;
  if (first != nullptr) first->set(State::kFirst);
}

void Turnstile::wake(Waiter* first) {
  // It may have seen its turn and be gone: then nobody sleeps at that address.
  if (first != nullptr) ring::futex_wake(first->state, 1);
}

}  // namespace trtinfer::pipeline
