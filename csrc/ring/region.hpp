#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ring/futex.hpp"

namespace trtinfer::ring {

/// The ring's state is one flat region: a Header and `capacity` Slots behind it, with indices where
/// pointers would be, so that the same bytes can later lie in memory shared by processes.

/// The index that names no slot.
inline constexpr std::uint32_t kNone = 0xffffffffu;

/// Priorities run from kLowestPriority to kHighestPriority; 0 is the default, higher runs first.
inline constexpr int kLowestPriority = -8;
inline constexpr int kHighestPriority = 7;
inline constexpr int kPriorities = kHighestPriority - kLowestPriority + 1;

/// free -> claimed -> published -> taken -> free; a claim that is given up goes back to free.
enum class SlotState : std::uint32_t { kFree, kClaimed, kPublished, kTaken };

/// One place of the ring. A claim of n slots is a unit: its first slot carries the fields below.
struct Slot {
  SlotState state;
  std::uint32_t count;           ///< slots of the unit, in its first slot
  std::uint32_t next, previous;  ///< neighbours in the list of published units
  std::uint32_t newer, older;    ///< neighbours in order of arena allocation
  std::int32_t priority;
  std::uint64_t sequence;      ///< running number of the claim
  std::uint64_t shape_key;     ///< only units with equal keys share a batch
  std::uint64_t arena_offset;  ///< bytes; meaningful while arena_bytes > 0
  std::uint64_t arena_bytes;
  Nanoseconds arrival, deadline;
};

/// A first-in-first-out list of published units.
struct UnitList {
  std::uint32_t first, last;
};

/// What all slots share. Guarded by `mutex`, except the wait words.
struct Header {
  FutexMutex mutex;
  WaitWord work;   ///< bumped when a unit is published or a lane becomes idle
  WaitWord space;  ///< bumped when slots become free
  WaitWord idle;   ///< bumped when nothing is published, taken or in flight
  std::uint32_t capacity;
  std::uint32_t cursor;  ///< where the next claim starts to look
  std::uint32_t free_slots;
  std::atomic<std::uint32_t> published_slots;  ///< written under the mutex, read anywhere
  std::uint32_t with_deadline;                 ///< published units that can expire
  std::uint32_t taken_units;                   ///< taken and not yet released
  std::uint32_t idle_lanes;                    ///< one bit a lane
  std::uint32_t all_lanes;
  std::uint32_t closed;
  std::uint32_t nonempty;  ///< one bit a priority
  std::uint64_t next_sequence;
  std::uint64_t arena_capacity, arena_head;
  std::uint32_t arena_oldest, arena_newest;
  UnitList published[kPriorities];
};

static_assert(std::is_trivially_destructible_v<Header> && std::is_standard_layout_v<Header>);
static_assert(std::is_trivially_copyable_v<Slot>);

}  // namespace trtinfer::ring
