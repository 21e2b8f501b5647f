// Which blocks a batch brings to the GPU as one, and which of them a kernel reads.
#include <vector>

#include "check.hpp"
#include "pipeline/host_copies.hpp"

using trtinfer::cuda::HostReader;
using trtinfer::pipeline::HostCopies;

namespace {

constexpr std::size_t kMuch = HostCopies::kReadBytes;

std::vector<std::byte> from_memory(2 * kMuch), to_memory(2 * kMuch);

std::byte* from(std::size_t offset) { return from_memory.data() + offset; }
std::byte* to(std::size_t offset) { return to_memory.data() + offset; }

void neighbours_are_one_block() {
  HostCopies copies;
  for (std::size_t i = 0; i < 8; ++i) copies.add(to(i * 100), from(i * 100), 100);
  CHECK(copies.suit(1));
}

void blocks_apart_stay_apart() {
  HostCopies copies;
  copies.add(to(0), from(0), 100);
  copies.add(to(100), from(200), 100);  // only one end follows
  copies.add(to(300), from(400), 100);  // both do, at a distance
  CHECK(!copies.suit(2));
  CHECK(copies.suit(3));
}

void a_gap_that_may_be_copied_joins() {
  HostCopies copies;
  copies.add(to(0), from(0), 100, 64);
  copies.add(to(160), from(160), 100, 64);
  CHECK(copies.suit(1));
  copies.add(to(160 + 164), from(160 + 164), 100, 64);  // one byte too far
  CHECK(!copies.suit(1));
}

void a_block_does_not_join_rows() {
  HostCopies copies;
  copies.add(to(0), from(0), {2, 100, 100, 200});
  copies.add(to(100), from(100), 100);
  CHECK(!copies.suit(1));
}

void large_batches_are_left_to_the_copy_engines() {
  HostCopies copies;
  copies.add(to(0), from(0), kMuch);
  CHECK(copies.suit(1));
  copies.add(to(kMuch), from(kMuch), 4);
  CHECK(!copies.suit(2));
  copies.clear();
  CHECK(copies.suit(0));
}

void places_that_are_not_whole_words_are_left_to_them_too() {
  HostCopies copies;
  copies.add(to(2), from(0), 100);
  CHECK(!copies.suit(1));
  CHECK(HostReader::reads(to(0), {3, 10, 12, 11}));
  CHECK(!HostReader::reads(to(0), {3, 10, 10, 11}));
}

}  // namespace

int main() {
  neighbours_are_one_block();
  blocks_apart_stay_apart();
  a_gap_that_may_be_copied_joins();
  a_block_does_not_join_rows();
  large_batches_are_left_to_the_copy_engines();
  places_that_are_not_whole_words_are_left_to_them_too();
}
