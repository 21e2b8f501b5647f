#pragma once

#include <cstddef>

namespace trtinfer::pipeline {

/// Who reads a slot: a GPU takes it from memory, so that it need not pass through the caches.
enum class Reader { kCpu, kGpu };

/// Fills a slot from memory that does not overlap it; large ones by several threads, as one alone
/// takes longer than a GPU takes to read it.
void copy_to_slot(std::byte* to, const std::byte* from, std::size_t bytes, Reader reader);

}  // namespace trtinfer::pipeline
