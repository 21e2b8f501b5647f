#include "ring/arena.hpp"

namespace trtinfer::ring {

bool Arena::place(std::uint64_t bytes, std::uint64_t& offset) const {
  if (header_.arena_oldest == kNone) {
    offset = 0;
    return bytes <= header_.arena_capacity;
  }
  const std::uint64_t head = header_.arena_head;
  const std::uint64_t oldest = slots_[header_.arena_oldest].arena_offset;
  if (head > oldest && bytes <= header_.arena_capacity - head) {
    offset = head;
    return true;
  }
  // The head never catches up with the oldest block exactly: equal would look like empty.
  const std::uint64_t start = head > oldest ? 0 : head;
  offset = start;
  return start + bytes < oldest;
}

bool Arena::allocate(std::uint32_t slot, std::uint64_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::uint64_t offset = 0;
  if (!place(bytes, offset)) return false;
  Slot& unit = slots_[slot];
  unit.arena_offset = offset;
  unit.arena_bytes = bytes;
  unit.older = header_.arena_newest;
  unit.newer = kNone;
  (header_.arena_newest == kNone ? header_.arena_oldest : slots_[header_.arena_newest].newer) =
      slot;
  header_.arena_newest = slot;
  header_.arena_head = offset + bytes;
  return true;
}

void Arena::free(std::uint32_t slot) {
  Slot& unit = slots_[slot];
  if (unit.arena_bytes == 0) return;
  (unit.older == kNone ? header_.arena_oldest : slots_[unit.older].newer) = unit.newer;
  (unit.newer == kNone ? header_.arena_newest : slots_[unit.newer].older) = unit.older;
  unit.arena_bytes = 0;
  // The newest block's end is where the next one starts: space behind it is free at once.
  if (header_.arena_newest != kNone) {
    const Slot& newest = slots_[header_.arena_newest];
    header_.arena_head = newest.arena_offset + newest.arena_bytes;
  }
}

std::uint64_t Arena::span() const {
  if (header_.arena_oldest == kNone) return 0;
  const std::uint64_t oldest = slots_[header_.arena_oldest].arena_offset;
  const std::uint64_t wrapped = header_.arena_head > oldest ? 0 : header_.arena_capacity;
  return wrapped + header_.arena_head - oldest;
}

}  // namespace trtinfer::ring
