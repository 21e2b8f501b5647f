#include "pipeline/slot_copy.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace trtinfer::pipeline {
namespace {

constexpr std::size_t kBytesEach = 4 << 20;  // copied in ten times what it takes to start a thread
constexpr std::size_t kMostThreads = 4;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kStreamed = 32 << 10;  // bytes from which passing by the caches pays

std::size_t threads_for(std::size_t bytes) {
  static const std::size_t most =  // asked once: it reads a file
      std::clamp<std::size_t>(std::thread::hardware_concurrency() / 2, 1, kMostThreads);
  return std::clamp<std::size_t>(bytes / kBytesEach, 1, most);
}

#ifdef __SSE2__

constexpr std::size_t kLine = 64;
constexpr std::size_t kAhead = 16 * kLine;

/// Stores that do not read what they overwrite into the caches first.
void stream(std::byte* to, const std::byte* from, std::size_t bytes) {
  const std::size_t head = std::min(-reinterpret_cast<std::uintptr_t>(to) % kLine, bytes);
  std::memcpy(to, from, head);
  std::size_t i = head;
  for (; i + kLine <= bytes; i += kLine) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_T0);
    for (std::size_t k = 0; k < kLine; k += sizeof(__m128i)) {
      const __m128i word = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k));
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + k), word);
    }
  }
  std::memcpy(to + i, from + i, bytes - i);
  _mm_sfence();  // before anybody is told of them
}

#else

void stream(std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

#endif

/// Of all that is copied one after the other, bytes [begin, end).
void copy(std::span<const SlotFill> fills, std::size_t begin, std::size_t end) {
  std::size_t at = 0;
  for (const SlotFill& fill : fills) {
    const std::size_t first = std::clamp(begin, at, at + fill.bytes) - at;
    const std::size_t bytes = std::clamp(end, at, at + fill.bytes) - at - first;
    at += fill.bytes;
    if (bytes == 0) continue;
    if (fill.stores == Stores::kStreaming && bytes >= kStreamed) {
      stream(fill.to + first, fill.from + first, bytes);
    } else {
      std::memcpy(fill.to + first, fill.from + first, bytes);
    }
  }
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

void fill_slots(std::span<const SlotFill> fills) {
  std::size_t bytes = 0;
  for (const SlotFill& fill : fills) bytes += fill.bytes;
  const std::size_t count = threads_for(bytes);
  const std::size_t each = (bytes / count + kPage - 1) / kPage * kPage;
  std::vector<std::jthread> threads;  // joined at the end
  std::size_t left = bytes;           // the last part is this thread's
  while (threads.size() + 1 < count && start(threads, [=] { copy(fills, left - each, left); })) {
    left -= each;
  }
  copy(fills, 0, left);
}

}  // namespace trtinfer::pipeline
