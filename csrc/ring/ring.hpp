#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ring/arena.hpp"
#include "ring/region.hpp"

namespace trtinfer::ring {

/// Sizes of a ring; they do not change while it lives.
struct RingOptions {
  std::uint32_t capacity = 1024;     ///< slots
  std::uint64_t arena_bytes = 0;     ///< bytes shared by requests of varying size; 0: none
  std::uint32_t lanes = 1;           ///< batches that may be in flight, at most 32
  std::uint32_t groups = 1;          ///< of neighbouring lanes, equally many in each
  std::uint32_t max_batch_size = 1;  ///< samples of a unit, and of a batch
  std::uint32_t merge_limit = 0;     ///< requests join a batch up to this size; 0: max_batch_size
  Nanoseconds max_delay = 0;         ///< how long a request may wait for company, from arrival
};

/// Slots that were claimed together: `count` neighbours from `slot` on.
struct Unit {
  std::uint32_t slot = kNone;
  std::uint32_t count = 0;
  std::uint64_t sequence = 0;  ///< tells this claim from a later one of the same slot
};

/// How a published unit is scheduled.
struct Schedule {
  int priority = 0;
  Nanoseconds arrival = 0;
  Nanoseconds deadline = kNever;
  std::uint64_t shape_key = 0;
};

enum class ClaimStatus { kClaimed, kFull, kClosed };

/// What `take` hands to a lane. Reused from batch to batch, so that it allocates only once.
struct TakenBatch {
  std::uint32_t lane = kNone;  ///< kNone: nothing to run
  std::uint32_t samples = 0;   ///< sum of the units' counts
  std::vector<Unit> units;     ///< in slot order, so that neighbours are contiguous in memory
  std::vector<Unit> expired;   ///< past their deadline: never run; the taker releases them too
  std::vector<std::uint64_t> unripe;  ///< shapes of batches that wait for company (max_delay)
  Nanoseconds retry_at = kNever;      ///< when the first of those ripens
  bool more = false;                  ///< units are left for another lane that is idle
  bool crowded = false;               ///< more than half of the slots, or of the arena, is in use
};

/// Counts at one moment.
struct Occupancy {
  std::uint32_t free = 0, published = 0, lanes_busy = 0;
};

/// The request ring: slots are claimed, filled, published, taken in batches and released.
/// Thread-safe; nothing here allocates after construction except growth of a TakenBatch.
/// Claims skip slots that are still busy, so a slow filler delays nobody but itself.
class Ring {
 public:
  explicit Ring(const RingOptions& options);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// Claims `count` neighbouring slots and `bytes` of the arena, waiting for room until `deadline`
  /// (0: not at all).
  ClaimStatus claim(std::uint32_t count, std::uint64_t bytes, Nanoseconds deadline, Unit& unit);

  /// Makes a claimed unit visible to the lanes; false (and nothing done) when the ring is closed.
  /// With `wake`, a sleeping lane thread is woken if a lane is idle.
  bool publish(Unit unit, const Schedule& schedule, bool wake);

  /// Takes a published unit back; false when a lane already has it.
  bool withdraw(Unit unit);

  /// Gives a claimed, withdrawn or taken unit's slots back.
  void release(Unit unit);
  void release(const std::vector<Unit>& units);

  /// Fills `batch` from the published units if a lane is idle and a batch is ripe at time `now`.
  /// Returns whether there is a batch to run. Expired units are taken out in any case. The lane is
  /// one of the group with most idle lanes, of equal ones the first.
  /// `limit`: samples to take at most, though a larger unit still runs whole; 0: expired ones only.
  bool take(TakenBatch& batch, Nanoseconds now, std::uint32_t limit = kNone);

  /// Ends the batch of `lane`. Without `continues` (the caller will not take again), a sleeping
  /// lane thread is woken when units are waiting.
  void finish(std::uint32_t lane, bool continues);

  /// Refuses claims and publications from now on and wakes all that wait.
  void close();

  /// Takes every published unit out, unrun; the caller resolves and releases them.
  void flush(std::vector<Unit>& units);

  /// Sleeps until nothing is published or taken and no lane is busy, or until `deadline`.
  bool wait_idle(Nanoseconds deadline);

  /// Lane threads sleep on this word when `take` had nothing.
  WaitWord& work() { return header_->work; }

  std::uint64_t arena_offset(Unit unit) const { return slots_[unit.slot].arena_offset; }
  /// Published slots that no lane has taken yet; an estimate while others publish.
  std::uint32_t published() const {
    return header_->published_slots.load(std::memory_order_relaxed);
  }

  std::uint32_t capacity() const { return header_->capacity; }
  Occupancy occupancy();

 private:
  bool find_run(std::uint32_t count, std::uint32_t& first) const;
  bool try_claim(std::uint32_t count, std::uint64_t bytes, Unit& unit);
  void free_unit(Unit unit);
  void link(std::uint32_t slot);
  void mark_taken(std::uint32_t slot);
  void unlink(std::uint32_t slot);
  void drop_expired(TakenBatch& batch, Nanoseconds now);
  /// The batch of the first in line that is ripe. Those who wait for company let others pass, of
  /// another shape, who do not.
  bool choose(TakenBatch& batch, Nanoseconds now, std::uint32_t limit);
  /// True when the next unit in line finds no room in it.
  bool collect(TakenBatch& batch, std::uint32_t leader, std::uint32_t limit);
  /// Whether it need not wait for company any more; else notes until when.
  bool ripe(TakenBatch& batch, std::uint32_t leader, Nanoseconds now) const;
  std::uint32_t idle_lane() const;
  bool is_crowded() const;
  bool is_idle() const;
  Unit unit_at(std::uint32_t slot) const;

  struct FreeRegion {
    void operator()(void* region) const;
  };

  const std::uint32_t merge_limit_, lanes_, group_size_;
  const Nanoseconds max_delay_;
  std::unique_ptr<void, FreeRegion> region_;
  Header* header_;
  Slot* slots_;
  Arena arena_;
};

}  // namespace trtinfer::ring
