#pragma once

#include <cstddef>

namespace trtinfer::pipeline {

/// Copies to memory that does not overlap; large blocks by several threads, as one alone takes
/// longer to fill a slot than a GPU takes to read it.
void parallel_copy(std::byte* to, const std::byte* from, std::size_t bytes);

}  // namespace trtinfer::pipeline
