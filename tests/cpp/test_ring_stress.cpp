// Producers, lanes, withdrawals, slow fillers and abandoned claims at once: no slot ever has two
// owners, every unit ends exactly once, and closing ends everything.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "ring/ring.hpp"

using namespace trtinfer::ring;

namespace {

constexpr std::uint32_t kCapacity = 32, kMaxBatchSize = 8, kArenaBytes = 4096;
constexpr std::size_t kMaxUnits = 1 << 20;

void pause(std::mt19937& random) {
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
}

class Stress {
 public:
  Stress(std::uint32_t lanes, Nanoseconds max_delay)
      : ring_({.capacity = kCapacity,
               .arena_bytes = kArenaBytes,
               .lanes = lanes,
               .max_batch_size = kMaxBatchSize,
               .max_delay = max_delay}),
        ended_(std::make_unique<std::atomic<bool>[]>(kMaxUnits)) {}

  void run(int producers, int runners, int milliseconds, bool drain) {
    std::vector<std::thread> filling, running;
    for (int i = 0; i < producers; ++i) filling.emplace_back([this, i] { produce(i); });
    for (int i = 0; i < runners; ++i) running.emplace_back([this] { take_until_stopped(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    ring_.close();
    if (!drain) {
      std::vector<Unit> units;
      ring_.flush(units);
      for (const Unit& unit : units) end(unit);
      ring_.release(units);
    }
    for (std::thread& thread : filling) thread.join();
    CHECK(ring_.wait_idle(now() + 10'000'000'000));
    stopping_ = true;
    ring_.work().wake();
    for (std::thread& thread : running) thread.join();
    CHECK(claimed_ > 0 && claimed_ == ended_count_);
    const Occupancy left = ring_.occupancy();
    CHECK(left.free == kCapacity && left.published == 0 && left.lanes_busy == 0);
  }

  std::uint64_t claimed() const { return claimed_; }

 private:
  // Writes the unit's number into its slots and its arena block; nobody else may be there.
  void fill(const Unit& unit, std::uint32_t bytes) {
    for (std::uint32_t slot = unit.slot; slot < unit.slot + unit.count; ++slot) {
      CHECK(!owned_[slot].exchange(true));
      memory_[slot] = unit.sequence;
    }
    sizes_[unit.slot] = bytes;
    for (std::uint32_t i = 0; i < bytes; ++i) {
      arena_[ring_.arena_offset(unit) + i] = static_cast<std::uint8_t>(unit.sequence);
    }
  }

  // Finds them as they were left, and notes that the unit ended.
  void end(const Unit& unit) {
    for (std::uint32_t i = 0; i < sizes_[unit.slot]; ++i) {
      CHECK(arena_[ring_.arena_offset(unit) + i] == static_cast<std::uint8_t>(unit.sequence));
    }
    for (std::uint32_t slot = unit.slot; slot < unit.slot + unit.count; ++slot) {
      CHECK(memory_[slot] == unit.sequence);
      CHECK(owned_[slot].exchange(false));
    }
    CHECK(unit.sequence < kMaxUnits && !ended_[unit.sequence].exchange(true));
    ++ended_count_;
  }

  void give_back(const Unit& unit) {
    end(unit);
    ring_.release(unit);
  }

  void produce(int seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    for (;;) {
      const std::uint32_t count = 1 + random() % 4, bytes = random() % 512;
      const Nanoseconds until = random() % 2 == 0 ? 0 : now() + 1'000'000;
      Unit unit;
      const ClaimStatus status = ring_.claim(count, bytes, until, unit);
      if (status == ClaimStatus::kClosed) return;
      if (status == ClaimStatus::kFull) continue;
      ++claimed_;
      fill(unit, bytes);
      if (random() % 16 == 0) pause(random);
      if (random() % 16 == 0) {
        give_back(unit);
        continue;
      }
      const Nanoseconds arrival = now();
      const Schedule schedule{static_cast<int>(random() % 20) - 10, arrival,
                              random() % 8 == 0 ? arrival + 50'000 : kNever, random() % 2};
      if (!ring_.publish(unit, schedule, true)) {
        give_back(unit);
        return;
      }
      if (random() % 64 == 0) pause(random);
      if (random() % 4 == 0 && ring_.withdraw(unit)) give_back(unit);
    }
  }

  void take_until_stopped() {
    TakenBatch batch;
    while (!stopping_) {
      const std::uint32_t seen = ring_.work().value();
      const bool taken = ring_.take(batch, now());
      for (const Unit& unit : batch.expired) end(unit);
      ring_.release(batch.expired);
      if (!taken) {
        if (!stopping_) ring_.work().wait(seen, batch.retry_at);
        continue;
      }
      CHECK(!lane_busy_[batch.lane].exchange(true));
      std::uint32_t samples = 0;
      for (const Unit& unit : batch.units) {
        samples += unit.count;
        end(unit);
      }
      CHECK(samples == batch.samples && samples <= kMaxBatchSize);
      ring_.release(batch.units);
      lane_busy_[batch.lane] = false;
      ring_.finish(batch.lane, true);
    }
  }

  Ring ring_;
  std::array<std::atomic<bool>, kCapacity> owned_{};
  std::array<std::atomic<bool>, 32> lane_busy_{};
  std::array<std::uint64_t, kCapacity> memory_{};
  std::array<std::uint32_t, kCapacity> sizes_{};
  std::array<std::uint8_t, kArenaBytes> arena_{};
  std::unique_ptr<std::atomic<bool>[]> ended_;
  std::atomic<std::uint64_t> claimed_{0}, ended_count_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace

int main() {
  std::uint64_t claimed = 0;
  for (const bool drain : {true, false}) {
    for (const Nanoseconds max_delay : {0, 100'000}) {
      for (const std::uint32_t lanes : {1u, 3u}) {
        for (int repeat = 0; repeat < 3; ++repeat) {
          Stress stress(lanes, max_delay);
          stress.run(4, static_cast<int>(lanes), 150, drain);
          claimed += stress.claimed();
        }
      }
    }
  }
  std::printf("%llu units\n", static_cast<unsigned long long>(claimed));
}
