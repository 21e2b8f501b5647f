// Every byte arrives, and none beside them.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "pipeline/slot_copy.hpp"

namespace {

using trtinfer::pipeline::Stores;

void copies_exactly(std::size_t bytes, Stores stores) {
  constexpr std::byte kGuard{0x5a};
  std::vector<std::byte> from(bytes), to(bytes + 2, kGuard);
  std::uint32_t state = 1;
  for (std::byte& byte : from) byte = std::byte(static_cast<std::uint8_t>((state *= 48271) >> 16));
  trtinfer::pipeline::copy_to_slot(to.data() + 1, from.data(), bytes, stores);
  CHECK(std::equal(from.begin(), from.end(), to.begin() + 1));
  CHECK(to.front() == kGuard && to.back() == kGuard);
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
}
