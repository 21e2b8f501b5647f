#include "pipeline/parallel_copy.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

namespace trtinfer::pipeline {
namespace {

constexpr std::size_t kBytesEach = 4 << 20;  // copied in ten times what it takes to start a thread
constexpr std::size_t kMostThreads = 4;
constexpr std::size_t kPage = 4096;

std::size_t threads_for(std::size_t bytes) {
  const std::size_t cores = std::thread::hardware_concurrency();
  return std::clamp<std::size_t>(bytes / kBytesEach, 1, std::clamp(cores / 2, 1UL, kMostThreads));
}

/// False: there are no more threads for this process.
template <typename Work>
bool start(std::vector<std::jthread>& threads, const Work& work) {
  try {
    threads.emplace_back(work);
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

}  // namespace

void parallel_copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes == 0) return;
  const std::size_t count = threads_for(bytes);
  const std::size_t each = (bytes / count + kPage - 1) / kPage * kPage;
  std::vector<std::jthread> threads;  // joined at the end
  std::size_t left = bytes;           // the last part is this thread's
  while (threads.size() + 1 < count && start(threads, [to, from, at = left - each, each] {
           std::memcpy(to + at, from + at, each);
         })) {
    left -= each;
  }
  std::memcpy(to, from, left);
}

}  // namespace trtinfer::pipeline
