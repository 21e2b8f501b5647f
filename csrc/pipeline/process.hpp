#pragma once

#include <cstdint>

namespace trtinfer::pipeline {

/// A number that differs between a process and its forked children, read without a system call.
std::uint32_t process_generation();

}  // namespace trtinfer::pipeline
