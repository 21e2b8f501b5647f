// The arena's blocks never overlap, and it refuses only when there is no room in ring order.
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "check.hpp"
#include "ring/arena.hpp"

using trtinfer::ring::Arena;
using trtinfer::ring::Header;
using trtinfer::ring::kNone;
using trtinfer::ring::Slot;

namespace {

constexpr std::uint64_t kUnit = Arena::kAlignment;

struct Fixture {
  Header header{};
  std::vector<Slot> slots;
  Arena arena;

  Fixture(std::uint64_t capacity, std::size_t slot_count)
      : slots(slot_count), arena(header, slots.data()) {
    header.arena_capacity = capacity;
    header.arena_oldest = header.arena_newest = kNone;
  }
  std::uint64_t offset(std::uint32_t slot) const { return slots[slot].arena_offset; }
};

void hands_out_neighbours_in_order() {
  Fixture f(10 * kUnit, 8);
  CHECK(f.arena.allocate(3, 1) && f.offset(3) == 0);
  CHECK(f.arena.allocate(1, kUnit) && f.offset(1) == kUnit);
  CHECK(f.arena.allocate(7, kUnit + 1) && f.offset(7) == 2 * kUnit);
  CHECK(f.arena.allocate(0, kUnit) && f.offset(0) == 4 * kUnit);
}

void takes_all_there_is_and_refuses_more() {
  Fixture f(4 * kUnit, 8);
  CHECK(!f.arena.allocate(0, 4 * kUnit + 1));
  CHECK(f.arena.allocate(0, 4 * kUnit));
  CHECK(!f.arena.allocate(1, 1) && f.arena.span() == 4 * kUnit);
  f.arena.free(0);
  CHECK(f.arena.span() == 0);
  CHECK(f.arena.allocate(1, 4 * kUnit) && f.offset(1) == 0);
}

void wraps_when_the_end_is_too_short() {
  Fixture f(10 * kUnit, 8);
  CHECK(f.arena.allocate(0, 4 * kUnit));
  CHECK(f.arena.allocate(1, 4 * kUnit));
  f.arena.free(0);
  CHECK(!f.arena.allocate(2, 4 * kUnit));  // would end where the oldest block begins
  CHECK(f.arena.allocate(2, 3 * kUnit) && f.offset(2) == 0);
  CHECK(!f.arena.allocate(3, kUnit) && f.arena.span() == 9 * kUnit);
  f.arena.free(1);
  CHECK(f.arena.span() == 3 * kUnit);
  CHECK(f.arena.allocate(3, 7 * kUnit) && f.offset(3) == 3 * kUnit);
}

void keeps_space_before_the_oldest_block_only() {
  Fixture f(6 * kUnit, 8);
  for (std::uint32_t slot = 0; slot < 3; ++slot) CHECK(f.arena.allocate(slot, 2 * kUnit));
  f.arena.free(1);  // a hole: not used before the block behind it is free, too
  CHECK(!f.arena.allocate(3, kUnit));
  f.arena.free(2);  // the newest: its space and the hole before it are free at once
  CHECK(f.arena.allocate(3, 4 * kUnit) && f.offset(3) == 2 * kUnit);
  f.arena.free(0);
  f.arena.free(3);
  CHECK(f.arena.allocate(4, 6 * kUnit));
}

void frees_nothing_twice() {
  Fixture f(4 * kUnit, 4);
  CHECK(f.arena.allocate(0, kUnit));
  f.arena.free(2);  // has no block
  f.arena.free(0);
  f.arena.free(0);
  CHECK(f.arena.allocate(1, 4 * kUnit));
  CHECK(!f.arena.allocate(2, kUnit));
}

/// The live blocks, oldest first, and where the next one may go, said in the plainest way.
class Reference {
 public:
  struct Block {
    std::uint32_t slot;
    std::uint64_t begin, end;
  };

  explicit Reference(std::uint64_t capacity) : capacity_(capacity) {}

  bool place(std::uint64_t bytes, std::uint64_t& begin) const {
    if (blocks.empty()) {
      begin = 0;
      return bytes <= capacity_;
    }
    const std::uint64_t oldest = blocks.front().begin, head = blocks.back().end;
    const bool wrapped = blocks.back().begin < oldest;
    if (!wrapped && head + bytes <= capacity_) {
      begin = head;
      return true;
    }
    begin = wrapped ? head : 0;
    return begin + bytes < oldest;
  }

  std::deque<Block> blocks;

 private:
  std::uint64_t capacity_;
};

void agrees_with_a_list_of_blocks() {
  std::mt19937 random(7);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  constexpr std::uint32_t kSlots = 24;
  std::uint64_t placed = 0, refused = 0, wraps = 0;
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t capacity = kUnit * (1 + below(40));
    Fixture f(capacity, kSlots);
    Reference reference(capacity);
    std::vector<std::uint32_t> unused;
    for (std::uint32_t slot = 0; slot < kSlots; ++slot) unused.push_back(slot);
    for (int step = 0; step < 500; ++step) {
      auto& blocks = reference.blocks;
      if (!unused.empty() && below(2) == 0) {
        const std::uint64_t bytes = 1 + below(kUnit * 9);
        const std::uint64_t rounded = (bytes + kUnit - 1) / kUnit * kUnit;
        const std::uint32_t slot = unused[below(unused.size())];
        std::uint64_t begin = 0;
        const bool fits = reference.place(rounded, begin);
        CHECK(f.arena.allocate(slot, bytes) == fits);
        ++(fits ? placed : refused);
        if (!fits) continue;
        CHECK(f.offset(slot) == begin && begin + rounded <= capacity);
        for (const auto& block : blocks)
          CHECK(begin + rounded <= block.begin || block.end <= begin);
        wraps += !blocks.empty() && begin < blocks.back().begin;
        blocks.push_back({slot, begin, begin + rounded});
        std::erase(unused, slot);
      } else if (!blocks.empty()) {
        // Mostly the oldest, as batches do; now and then any other.
        const auto at = static_cast<std::ptrdiff_t>(below(3) != 0 ? 0 : below(blocks.size()));
        const std::uint32_t slot = blocks[static_cast<std::size_t>(at)].slot;
        f.arena.free(slot);
        blocks.erase(blocks.begin() + at);
        unused.push_back(slot);
      }
    }
  }
  CHECK(placed > 10000 && refused > 1000 && wraps > 1000);
}

}  // namespace

int main() {
  hands_out_neighbours_in_order();
  takes_all_there_is_and_refuses_more();
  wraps_when_the_end_is_too_short();
  keeps_space_before_the_oldest_block_only();
  frees_nothing_twice();
  agrees_with_a_list_of_blocks();
}
