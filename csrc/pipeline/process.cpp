#include "pipeline/process.hpp"

#include <pthread.h>

#include <atomic>

namespace trtinfer::pipeline {
namespace {

std::atomic<std::uint32_t> generation{0};

[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1); });

}  // namespace

std::uint32_t process_generation() { return generation.load(std::memory_order_relaxed); }

}  // namespace trtinfer::pipeline
