#pragma once

#include <atomic>
#include <cstdint>

#include "ring/futex.hpp"

namespace trtinfer::pipeline {

/// Lets callers that have their answer back to their own code one after another, in order.
/// There they all want one lock (an interpreter's), and such a lock mostly goes to the thread that
/// has just given it up: that one is awake, the others are not. Here the first in line is awake,
/// too, and looks for its turn, so that the hand-over costs nothing; all others sleep. Nobody
/// holds up others for long: who does not come again soon does other things. Thread-safe.
class Turnstile {
 public:
  /// `away`: how long the next one waits for a caller that went out to come again. `waking`: how
  /// long callers may overtake the first in line while it wakes up; down to half of it in a long
  /// line, whose last would wait for so many wakings.
  explicit Turnstile(ring::Nanoseconds away = 10'000, ring::Nanoseconds waking = 20'000)
      : away_(away), waking_(waking) {}

  /// Waits for the caller's turn to go back. Call it before wanting the lock.
  void go_out();

  /// Lets the next one go. Call it after giving the lock up.
  void come_in();

 private:
  enum class State : std::uint32_t { kAsleep, kFirst, kLooking, kGone };

  struct Waiter {
    std::atomic<std::uint32_t> state{0};
    Waiter* next = nullptr;

    State get() const { return static_cast<State>(state.load(std::memory_order_acquire)); }
    void set(State to) { state.store(static_cast<std::uint32_t>(to), std::memory_order_release); }
  };

  bool may_overtake(ring::Nanoseconds now) const;
  bool is_free(ring::Nanoseconds now) const { return !out_ || now - since_ > away_; }
  void join(Waiter& self, ring::Nanoseconds now);
  bool try_go(Waiter& self);
  Waiter* pop(ring::Nanoseconds now);
  void make_first(Waiter* first, ring::Nanoseconds now);
  static void wake(Waiter* first);

  const ring::Nanoseconds away_, waking_;
  ring::FutexMutex mutex_;  // guards all below; `since_` is read without it, too
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
  std::uint32_t waiting_ = 0;
  bool out_ = false;  // one went out and has not come again
  ring::Nanoseconds first_since_ = 0;
  std::atomic<ring::Nanoseconds> since_{0};  // when the last one went out
};

}  // namespace trtinfer::pipeline
