#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <limits>

namespace trtinfer::ring {

/// Nanoseconds of the monotonic clock; every arrival, deadline and latency is in this unit.
using Nanoseconds = std::int64_t;

/// A deadline that never comes.
inline constexpr Nanoseconds kNever = std::numeric_limits<Nanoseconds>::max();

inline Nanoseconds now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
      .count();
}

/// Tells the core that this is a loop that waits.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Sleeps while `word` still holds `expected`, until a wake-up or `deadline`; spurious returns are
/// possible, so callers loop. The word may lie in memory shared by processes.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       Nanoseconds deadline = kNever) {
  timespec until{};
  timespec* timeout = nullptr;
  if (deadline != kNever) {
    until.tv_sec = deadline / 1'000'000'000;
    until.tv_nsec = deadline % 1'000'000'000;
    timeout = &until;
  }
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected, timeout, nullptr, FUTEX_BITSET_MATCH_ANY);
}

/// Wakes up to `count` sleepers of `word`.
inline void futex_wake(std::atomic<std::uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0);
}

/// A mutex of four bytes without pointers, so that it may lie in shared memory.
/// The three states are those of U. Drepper, "Futexes Are Tricky" (2011), section 5.
class FutexMutex {
 public:
  void lock() {
    for (int spin = 0; spin < kSpins; ++spin) {
      std::uint32_t expected = kUnlocked;
      if (word_.compare_exchange_weak(expected, kLocked, std::memory_order_acquire)) return;
    }
    while (word_.exchange(kContended, std::memory_order_acquire) != kUnlocked) {
      futex_wait(word_, kContended);
    }
  }

  void unlock() {
    if (word_.exchange(kUnlocked, std::memory_order_release) == kContended) futex_wake(word_, 1);
  }

 private:
  static constexpr std::uint32_t kUnlocked = 0, kLocked = 1, kContended = 2;
  static constexpr int kSpins = 64;
  std::atomic<std::uint32_t> word_{kUnlocked};
};

/// A futex word with a count of its sleepers, so that nobody pays a system call to wake no one.
/// `value()` is read before the condition is checked; `wait` returns at once if it has changed.
class WaitWord {
 public:
  std::uint32_t value() const { return word_.load(std::memory_order_acquire); }

  void wait(std::uint32_t seen, Nanoseconds deadline = kNever) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    if (word_.load(std::memory_order_seq_cst) == seen) futex_wait(word_, seen, deadline);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }

  /// Looks for a change for a while instead of sleeping; true when there was one.
  bool spin(std::uint32_t seen, Nanoseconds until) const {
    while (word_.load(std::memory_order_acquire) == seen) {
      for (int i = 0; i < 32; ++i) pause();
      if (now() >= until) return false;
    }
    return true;
  }

  void wake(int count = INT_MAX) {
    word_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) futex_wake(word_, count);
  }

 private:
  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace trtinfer::ring
