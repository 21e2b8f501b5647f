#pragma once

#include <cstddef>
#include <span>

namespace trtinfer::pipeline {

/// Streaming stores pass by the caches: quicker where the slot is in none of them and a GPU reads
/// it.
enum class Stores { kCached, kStreaming };

/// What is copied into a slot, which it does not overlap.
struct SlotFill {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::size_t bytes = 0;
  Stores stores = Stores::kCached;
};

/// Fills slots; with much by several threads, as one alone takes longer than a GPU takes to read
/// it.
void fill_slots(std::span<const SlotFill> fills);

inline void fill_slot(const SlotFill& fill) { fill_slots({&fill, 1}); }

}  // namespace trtinfer::pipeline
