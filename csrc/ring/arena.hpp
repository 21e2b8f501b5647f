#pragma once

#include <cstdint>

#include "ring/region.hpp"

namespace trtinfer::ring {

/// Byte offsets of the shared arena, handed out in ring order and given back in any order; the
/// space before the oldest live block is free. Borrows the region; not thread-safe (the ring's
/// lock).
class Arena {
 public:
  Arena(Header& header, Slot* slots) : header_(header), slots_(slots) {}

  /// Reserves `bytes` (rounded up to kAlignment) for the unit at `slot`; false when there is no
  /// room.
  bool allocate(std::uint32_t slot, std::uint64_t bytes);

  /// Gives the block of the unit at `slot` back; nothing happens when it has none.
  void free(std::uint32_t slot);

  /// Bytes from the oldest block to the newest one's end: those in use and the holes between them.
  std::uint64_t span() const;

  static constexpr std::uint64_t kAlignment = 64;

 private:
  bool place(std::uint64_t bytes, std::uint64_t& offset) const;

  Header& header_;
  Slot* slots_;
};

}  // namespace trtinfer::ring
