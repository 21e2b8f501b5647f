#include "ring/ring.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>

namespace trtinfer::ring {
namespace {

constexpr std::size_t kCacheLine = 64;
// Claims start over once they have gone through so many times the slots in use: they stay in warm
// memory, and most neighbours still come one after another.
constexpr std::uint32_t kWindow = 3;
constexpr std::size_t kMostUnripe = 16;  // shapes that are looked past, with the lock held

std::size_t slots_offset() { return (sizeof(Header) + kCacheLine - 1) / kCacheLine * kCacheLine; }

void* allocate_region(std::uint32_t capacity) {
  const std::size_t bytes = slots_offset() + sizeof(Slot) * capacity;
  void* region = std::aligned_alloc(kCacheLine, (bytes + kCacheLine - 1) / kCacheLine * kCacheLine);
  if (region == nullptr) throw std::bad_alloc();
  return region;
}

std::uint32_t lowest_bits(std::uint32_t count) { return count == 32 ? ~0u : (1u << count) - 1; }

std::uint32_t priority_index(std::int32_t priority) {
  return static_cast<std::uint32_t>(std::clamp(priority, kLowestPriority, kHighestPriority) -
                                    kLowestPriority);
}

}  // namespace

void Ring::FreeRegion::operator()(void* region) const { std::free(region); }

Ring::Ring(const RingOptions& options)
    : merge_limit_(options.merge_limit != 0 ? options.merge_limit : options.max_batch_size),
      lanes_(options.lanes),
      group_size_(options.lanes / std::max(options.groups, 1u)),
      max_delay_(options.max_delay),
      region_(allocate_region(options.capacity)),
      header_(new (region_.get()) Header{}),
      slots_(reinterpret_cast<Slot*>(static_cast<std::byte*>(region_.get()) + slots_offset())),
      arena_(*header_, slots_) {
  if (options.capacity == 0 || options.lanes == 0 || options.lanes > 32) {
    throw std::invalid_argument("a ring needs at least one slot and 1 to 32 lanes");
  }
  if (group_size_ * options.groups != options.lanes || group_size_ == 0) {
    throw std::invalid_argument("lanes are shared out in groups of equal size");
  }
  header_->capacity = header_->free_slots = options.capacity;
  header_->all_lanes = lowest_bits(options.lanes);
  header_->idle_lanes = header_->all_lanes;
  header_->arena_capacity = options.arena_bytes;
  header_->arena_oldest = header_->arena_newest = kNone;
  for (UnitList& list : header_->published) list = {kNone, kNone};
  for (std::uint32_t i = 0; i < options.capacity; ++i) new (slots_ + i) Slot{};
}

bool Ring::find_run(std::uint32_t count, std::uint32_t& first) const {
  const std::uint32_t capacity = header_->capacity;
  std::uint32_t run = 0, i = header_->cursor;
  for (std::uint32_t seen = 0; seen < capacity + count; ++seen, ++i) {
    if (i >= capacity) i = run = 0;  // a unit never wraps: its slots are one block of memory
    run = slots_[i].state == SlotState::kFree ? run + 1 : 0;
    if (run == count) {
      first = i + 1 - count;
      return true;
    }
  }
  return false;
}

bool Ring::try_claim(std::uint32_t count, std::uint64_t bytes, Unit& unit) {
  const std::uint32_t used = header_->capacity - header_->free_slots;
  if (header_->cursor >= kWindow * used) header_->cursor = 0;
  std::uint32_t first = 0;
  if (header_->free_slots < count || !find_run(count, first)) return false;
  if (bytes > 0 && !arena_.allocate(first, bytes)) return false;
  for (std::uint32_t i = first; i < first + count; ++i) slots_[i].state = SlotState::kClaimed;
  slots_[first].count = count;
  slots_[first].sequence = header_->next_sequence++;
  header_->free_slots -= count;
  header_->cursor = first + count == header_->capacity ? 0 : first + count;
  unit = unit_at(first);
  return true;
}

ClaimStatus Ring::claim(std::uint32_t count, std::uint64_t bytes, Nanoseconds deadline,
                        Unit& unit) {
  for (;;) {
    const std::uint32_t seen = header_->space.value();
    {
      std::lock_guard lock(header_->mutex);
      if (header_->closed) return ClaimStatus::kClosed;
      if (try_claim(count, bytes, unit)) return ClaimStatus::kClaimed;
    }
    if (deadline <= 0 || now() >= deadline) return ClaimStatus::kFull;
    header_->space.wait(seen, deadline);
  }
}

void Ring::link(std::uint32_t slot) {
  const std::uint32_t index = priority_index(slots_[slot].priority);
  UnitList& list = header_->published[index];
  slots_[slot].previous = list.last;
  slots_[slot].next = kNone;
  (list.last == kNone ? list.first : slots_[list.last].next) = slot;
  list.last = slot;
  header_->nonempty |= 1u << index;
  header_->published_slots.fetch_add(slots_[slot].count, std::memory_order_relaxed);
  header_->with_deadline += slots_[slot].deadline != kNever;
}

void Ring::unlink(std::uint32_t slot) {
  const std::uint32_t index = priority_index(slots_[slot].priority);
  UnitList& list = header_->published[index];
  const Slot& unit = slots_[slot];
  (unit.previous == kNone ? list.first : slots_[unit.previous].next) = unit.next;
  (unit.next == kNone ? list.last : slots_[unit.next].previous) = unit.previous;
  if (list.first == kNone) header_->nonempty &= ~(1u << index);
  header_->published_slots.fetch_sub(unit.count, std::memory_order_relaxed);
  header_->with_deadline -= unit.deadline != kNever;
}

void Ring::mark_taken(std::uint32_t slot) {
  unlink(slot);
  slots_[slot].state = SlotState::kTaken;
  ++header_->taken_units;
}

bool Ring::publish(Unit unit, const Schedule& schedule, bool wake) {
  std::unique_lock lock(header_->mutex);
  if (header_->closed) return false;
  Slot& slot = slots_[unit.slot];
  slot.priority = schedule.priority;
  slot.arrival = schedule.arrival;
  slot.deadline = schedule.deadline;
  slot.shape_key = schedule.shape_key;
  slot.state = SlotState::kPublished;
  link(unit.slot);
  const bool lane_idle = header_->idle_lanes != 0;
  lock.unlock();
  if (wake && lane_idle) header_->work.wake(1);
  return true;
}

bool Ring::withdraw(Unit unit) {
  std::lock_guard lock(header_->mutex);
  Slot& slot = slots_[unit.slot];
  if (slot.state != SlotState::kPublished || slot.sequence != unit.sequence) return false;
  unlink(unit.slot);
  slot.state = SlotState::kClaimed;
  if (is_idle()) header_->idle.wake();
  return true;
}

void Ring::free_unit(Unit unit) {
  arena_.free(unit.slot);
  header_->taken_units -= slots_[unit.slot].state == SlotState::kTaken;
  for (std::uint32_t i = unit.slot; i < unit.slot + unit.count; ++i) {
    slots_[i].state = SlotState::kFree;
  }
  header_->free_slots += unit.count;
}

void Ring::release(Unit unit) {
  {
    std::lock_guard lock(header_->mutex);
    free_unit(unit);
    if (is_idle()) header_->idle.wake();
  }
  header_->space.wake();
}

void Ring::release(const std::vector<Unit>& units) {
  if (units.empty()) return;
  {
    std::lock_guard lock(header_->mutex);
    for (const Unit& unit : units) free_unit(unit);
    if (is_idle()) header_->idle.wake();
  }
  header_->space.wake();
}

void Ring::drop_expired(TakenBatch& batch, Nanoseconds now) {
  for (const UnitList& list : header_->published) {
    for (std::uint32_t slot = list.first; slot != kNone;) {
      const std::uint32_t next = slots_[slot].next;
      if (slots_[slot].deadline <= now) {
        mark_taken(slot);
        batch.expired.push_back(unit_at(slot));
      }
      slot = next;
    }
  }
}

bool Ring::choose(TakenBatch& batch, Nanoseconds now, std::uint32_t limit) {
  if (limit == 0) return false;
  batch.unripe.clear();
  for (int index = kPriorities - 1; index >= 0; --index) {
    for (std::uint32_t slot = header_->published[index].first; slot != kNone;
         slot = slots_[slot].next) {
      const std::uint64_t key = slots_[slot].shape_key;
      if (std::find(batch.unripe.begin(), batch.unripe.end(), key) != batch.unripe.end()) continue;
      if (collect(batch, slot, limit) || ripe(batch, slot, now)) return true;
      batch.samples = 0;
      batch.units.clear();
      batch.unripe.push_back(key);
      if (batch.unripe.size() == kMostUnripe) return false;
    }
  }
  return false;
}

bool Ring::collect(TakenBatch& batch, std::uint32_t leader, std::uint32_t limit) {
  const std::uint64_t key = slots_[leader].shape_key;
  for (int index = kPriorities - 1; index >= 0; --index) {
    for (std::uint32_t slot = header_->published[index].first; slot != kNone;
         slot = slots_[slot].next) {
      if (slots_[slot].shape_key != key) continue;
      // Nobody overtakes a unit that does not fit: order inside a priority is kept.
      if (batch.samples + slots_[slot].count > limit && !batch.units.empty()) return true;
      batch.units.push_back(unit_at(slot));
      batch.samples += slots_[slot].count;
      if (batch.samples >= limit) return true;
    }
  }
  return false;
}

bool Ring::ripe(TakenBatch& batch, std::uint32_t leader, Nanoseconds now) const {
  if (max_delay_ <= 0 || header_->closed) return true;
  Nanoseconds oldest = slots_[leader].arrival;
  for (const Unit& unit : batch.units) oldest = std::min(oldest, slots_[unit.slot].arrival);
  batch.retry_at = std::min(batch.retry_at, oldest + max_delay_);
  return now >= oldest + max_delay_;
}

std::uint32_t Ring::idle_lane() const {
  std::uint32_t lane = kNone;
  int most = 0;
  for (std::uint32_t first = 0; first < lanes_; first += group_size_) {
    const std::uint32_t idle = header_->idle_lanes >> first & lowest_bits(group_size_);
    if (std::popcount(idle) <= most) continue;
    most = std::popcount(idle);
    lane = first + static_cast<std::uint32_t>(std::countr_zero(idle));
  }
  return lane;
}

bool Ring::take(TakenBatch& batch, Nanoseconds now, std::uint32_t limit) {
  batch.lane = kNone;
  batch.samples = 0;
  batch.units.clear();
  batch.expired.clear();
  batch.retry_at = kNever;
  batch.more = false;
  std::lock_guard lock(header_->mutex);
  if (header_->nonempty == 0) return false;
  if (header_->with_deadline != 0) drop_expired(batch, now);
  if (header_->idle_lanes == 0 || !choose(batch, now, std::min(limit, merge_limit_))) return false;
  for (const Unit& unit : batch.units) mark_taken(unit.slot);
  std::sort(batch.units.begin(), batch.units.end(),
            [](const Unit& a, const Unit& b) { return a.slot < b.slot; });
  batch.lane = idle_lane();
  header_->idle_lanes &= ~(1u << batch.lane);
  batch.more = header_->nonempty != 0 && header_->idle_lanes != 0;
  batch.crowded = is_crowded();
  return true;
}

void Ring::finish(std::uint32_t lane, bool continues) {
  std::unique_lock lock(header_->mutex);
  header_->idle_lanes |= 1u << lane;
  const bool waiting = header_->nonempty != 0;
  if (is_idle()) header_->idle.wake();
  lock.unlock();
  if (waiting && !continues) header_->work.wake(1);
}

void Ring::close() {
  {
    std::lock_guard lock(header_->mutex);
    header_->closed = 1;
  }
  header_->space.wake();
  header_->work.wake();
}

void Ring::flush(std::vector<Unit>& units) {
  std::lock_guard lock(header_->mutex);
  for (const UnitList& list : header_->published) {
    while (list.first != kNone) {
      const std::uint32_t slot = list.first;
      mark_taken(slot);
      units.push_back(unit_at(slot));
    }
  }
}

Unit Ring::unit_at(std::uint32_t slot) const {
  return {slot, slots_[slot].count, slots_[slot].sequence};
}

bool Ring::is_crowded() const {
  return 2 * header_->free_slots < header_->capacity || 2 * arena_.span() > header_->arena_capacity;
}

bool Ring::is_idle() const {
  return header_->nonempty == 0 && header_->taken_units == 0 &&
         header_->idle_lanes == header_->all_lanes;
}

bool Ring::wait_idle(Nanoseconds deadline) {
  for (;;) {
    const std::uint32_t seen = header_->idle.value();
    {
      std::lock_guard lock(header_->mutex);
      if (is_idle()) return true;
    }
    if (now() >= deadline) return false;
    header_->idle.wait(seen, deadline);
  }
}

Occupancy Ring::occupancy() {
  std::lock_guard lock(header_->mutex);
  return {header_->free_slots, published(),
          static_cast<std::uint32_t>(std::popcount(header_->all_lanes & ~header_->idle_lanes))};
}

}  // namespace trtinfer::ring
