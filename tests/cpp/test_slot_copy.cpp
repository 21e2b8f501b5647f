// Every byte arrives, and none beside them.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "pipeline/slot_copy.hpp"

namespace {

using trtinfer::pipeline::SlotFill;
using trtinfer::pipeline::Stores;

std::vector<std::byte> draw(std::size_t bytes) {
  std::vector<std::byte> drawn(bytes);
  std::uint32_t state = 1;
  for (std::byte& byte : drawn) byte = std::byte(static_cast<std::uint8_t>((state *= 48271) >> 16));
  return drawn;
}

void copies_exactly(std::size_t bytes, Stores stores) {
  constexpr std::byte kGuard{0x5a};
  const std::vector<std::byte> from = draw(bytes);
  std::vector<std::byte> to(bytes + 2, kGuard);
  trtinfer::pipeline::fill_slot({to.data() + 1, from.data(), bytes, stores});
  CHECK(std::equal(from.begin(), from.end(), to.begin() + 1));
  CHECK(to.front() == kGuard && to.back() == kGuard);
}

void fills_many_at_once(std::size_t count, std::size_t each) {
  const std::vector<std::byte> from = draw(count * each);
  std::vector<std::byte> to(count * each);
  std::vector<SlotFill> fills;
  for (std::size_t i = 0; i < count; ++i) {  // in the opposite order, of two sizes
    const std::size_t at = (count - 1 - i) * each, bytes = i % 2 == 0 ? each : each / 2;
    fills.push_back({&to[at], &from[at], bytes, i % 3 == 0 ? Stores::kStreaming : Stores::kCached});
  }
  trtinfer::pipeline::fill_slots(fills);
  for (const SlotFill& fill : fills) {
    CHECK(std::equal(fill.from, fill.from + fill.bytes, fill.to));
    const std::byte* end = fill.to + fill.bytes;
    CHECK(
        std::all_of(end, end + (each - fill.bytes), [](std::byte b) { return b == std::byte{}; }));
  }
}

}  // namespace

int main() {
  constexpr std::size_t kKilo = 1 << 10, kMega = 1 << 20;
  for (const Stores stores : {Stores::kCached, Stores::kStreaming}) {
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{1}, 32 * kKilo - 1, 32 * kKilo, 100 * kKilo + 77,
          8 * kMega - 1, 8 * kMega, 8 * kMega + 1, 17 * kMega + 4095, 40 * kMega + 3}) {
      copies_exactly(bytes, stores);
    }
  }
  fills_many_at_once(7, 1000);
  fills_many_at_once(64, 150528);  // by two threads where there are as many cores
  fills_many_at_once(33, (1 << 20) + 1);
}
