#pragma once

#include <cstddef>

namespace trtinfer::pipeline {

/// Streaming stores pass by the caches: quicker where the slot is in none of them and a GPU reads
/// it.
enum class Stores { kCached, kStreaming };

/// Fills a slot from memory that does not overlap it; large ones by several threads, as one alone
/// takes longer than a GPU takes to read it.
void copy_to_slot(std::byte* to, const std::byte* from, std::size_t bytes, Stores stores);

}  // namespace trtinfer::pipeline
