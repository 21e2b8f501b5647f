// What the ring does, one thread at a time; `test_ring_stress` has all of them at once.
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "ring/ring.hpp"

using namespace trtinfer::ring;

namespace {

Unit claim(Ring& ring, std::uint32_t count = 1, std::uint64_t bytes = 0) {
  Unit unit;
  CHECK(ring.claim(count, bytes, 0, unit) == ClaimStatus::kClaimed);
  CHECK(unit.count == count);
  return unit;
}

bool refuses(Ring& ring, std::uint32_t count = 1, std::uint64_t bytes = 0) {
  Unit unit;
  return ring.claim(count, bytes, 0, unit) == ClaimStatus::kFull;
}

Unit publish(Ring& ring, const Schedule& schedule = {}, std::uint32_t count = 1) {
  const Unit unit = claim(ring, count);
  CHECK(ring.publish(unit, schedule, true));
  return unit;
}

std::vector<std::uint32_t> slots_of(const TakenBatch& batch) {
  std::vector<std::uint32_t> slots;
  for (const Unit& unit : batch.units) slots.push_back(unit.slot);
  return slots;
}

// The slots of the next batch, which ends at once.
std::vector<std::uint32_t> run_next(Ring& ring, Nanoseconds now = 0) {
  TakenBatch batch;
  if (!ring.take(batch, now)) return {};
  ring.release(batch.units);
  ring.finish(batch.lane, true);
  return slots_of(batch);
}

using Slots = std::vector<std::uint32_t>;

// --- Claims

void claims_neighbours_in_order() {
  Ring ring({.capacity = 8, .max_batch_size = 4});
  CHECK(claim(ring, 3).slot == 0);
  CHECK(claim(ring, 1).slot == 3);
  CHECK(claim(ring, 4).slot == 4);
  CHECK(ring.occupancy().free == 0);
}

void skips_slots_that_are_busy() {
  Ring ring({.capacity = 4});
  for (std::uint32_t slot = 0; slot < 4; ++slot) CHECK(claim(ring).slot == slot);
  ring.release({1, 1, 0});
  ring.release({3, 1, 0});
  CHECK(claim(ring).slot == 1);  // 0 belongs to a slow filler
  CHECK(claim(ring).slot == 3);
  CHECK(refuses(ring));
}

void never_wraps_a_unit() {
  Ring ring({.capacity = 8, .max_batch_size = 8});
  const Unit first = claim(ring, 6);
  CHECK(claim(ring, 1).slot == 6);
  CHECK(refuses(ring, 2));
  ring.release(first);
  CHECK(claim(ring, 3).slot == 0);
  CHECK(claim(ring, 3).slot == 3);
  CHECK(claim(ring, 1).slot == 7);
}

void finds_a_run_across_its_cursor() {
  Ring ring({.capacity = 8, .max_batch_size = 8});
  const Unit held = claim(ring, 1);
  const Unit before = claim(ring, 3);
  ring.release(before);
  CHECK(claim(ring, 7).slot == 1);
  ring.release(held);
}

void starts_over_when_empty() {
  Ring ring({.capacity = 8});
  for (int i = 0; i < 20; ++i) {
    const Unit unit = claim(ring);
    CHECK(unit.slot == 0);
    ring.release(unit);
  }
}

void stays_in_a_window_of_what_is_in_use() {
  Ring ring({.capacity = 64, .max_batch_size = 4});
  const Unit slow = claim(ring);  // and never published
  for (int i = 0; i < 100; ++i) {
    publish(ring, {}, 2);
    publish(ring, {}, 2);
    const Slots slots = run_next(ring);
    CHECK(slots.size() == 2 && slots[1] < 15);
  }
  ring.release(slow);
}

void refuses_when_no_neighbours_are_free() {
  Ring ring({.capacity = 4, .max_batch_size = 4});
  for (int i = 0; i < 4; ++i) claim(ring);
  ring.release({0, 1, 0});
  ring.release({2, 1, 0});
  CHECK(ring.occupancy().free == 2 && refuses(ring, 2));
  ring.release({1, 1, 0});
  CHECK(claim(ring, 3).slot == 0);
}

void waits_for_room_until_the_deadline() {
  Ring ring({.capacity = 1});
  const Unit held = claim(ring);
  Unit unit;
  const Nanoseconds deadline = now() + 20'000'000;
  CHECK(ring.claim(1, 0, deadline, unit) == ClaimStatus::kFull);
  CHECK(now() >= deadline);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ring.release(held);
  });
  CHECK(ring.claim(1, 0, kNever, unit) == ClaimStatus::kClaimed);
  other.join();
}

void shares_the_arena() {
  Ring ring({.capacity = 8, .arena_bytes = 256});
  const Unit first = claim(ring, 1, 128), second = claim(ring, 1, 100);
  CHECK(ring.arena_offset(first) == 0 && ring.arena_offset(second) == 128);
  CHECK(refuses(ring, 1, 1) && ring.occupancy().free == 6);
  ring.release(first);
  const Unit third = claim(ring, 1, 64);
  CHECK(ring.arena_offset(third) == 0);
}

void refuses_impossible_sizes() {
  CHECK_THROWS(Ring({.capacity = 0}), std::invalid_argument);
  CHECK_THROWS(Ring({.capacity = 1, .lanes = 0}), std::invalid_argument);
  CHECK_THROWS(Ring({.capacity = 1, .lanes = 33}), std::invalid_argument);
  CHECK_THROWS(Ring({.capacity = 1, .lanes = 4, .groups = 0}), std::invalid_argument);
  CHECK_THROWS(Ring({.capacity = 1, .lanes = 4, .groups = 3}), std::invalid_argument);
  CHECK_THROWS(Ring({.capacity = 1, .lanes = 2, .groups = 4}), std::invalid_argument);
}

// --- Batches

void takes_what_is_published_in_slot_order() {
  Ring ring({.capacity = 8, .max_batch_size = 8});
  const Unit a = claim(ring, 2), b = claim(ring, 1), c = claim(ring, 3);
  for (const Unit& unit : {c, a, b}) CHECK(ring.publish(unit, {}, true));
  TakenBatch batch;
  CHECK(ring.take(batch, 0) && batch.samples == 6);
  CHECK((slots_of(batch) == Slots{a.slot, b.slot, c.slot}));
  CHECK(ring.occupancy().published == 0 && ring.occupancy().lanes_busy == 1);
}

void leaves_unpublished_claims_alone() {
  Ring ring({.capacity = 4, .max_batch_size = 4});
  publish(ring);
  const Unit slow = claim(ring);
  publish(ring);
  CHECK((run_next(ring) == Slots{0, 2}));
  CHECK(run_next(ring).empty());
  CHECK(ring.publish(slow, {}, true));
  CHECK((run_next(ring) == Slots{1}));
}

void runs_higher_priorities_first_and_each_in_order() {
  Ring ring({.capacity = 8, .max_batch_size = 1});
  for (const int priority : {0, 5, -8, 5, 0, 7}) publish(ring, {.priority = priority});
  for (const std::uint32_t slot : {5u, 1u, 3u, 0u, 4u, 2u}) CHECK(run_next(ring) == Slots{slot});
}

void fills_a_batch_up_with_lower_priorities() {
  Ring ring({.capacity = 8, .max_batch_size = 3});
  for (const int priority : {0, -1, 0, 1}) publish(ring, {.priority = priority});
  CHECK((run_next(ring) == Slots{0, 2, 3}));
  CHECK((run_next(ring) == Slots{1}));
}

void merges_up_to_the_limit() {
  Ring ring({.capacity = 16, .max_batch_size = 8, .merge_limit = 4});
  for (const std::uint32_t count : {2u, 3u, 1u, 8u, 1u}) publish(ring, {}, count);
  CHECK((run_next(ring) == Slots{0}));     // 2 and 3 are too many: nobody overtakes the 3
  CHECK((run_next(ring) == Slots{2, 5}));  // 3 + 1
  CHECK((run_next(ring) == Slots{6}));     // larger than the limit, but a unit
  CHECK((run_next(ring) == Slots{14}));
}

void joins_equal_shapes_only() {
  Ring ring({.capacity = 8, .max_batch_size = 8});
  for (const std::uint64_t key : {1u, 2u, 1u, 2u}) publish(ring, {.shape_key = key});
  CHECK((run_next(ring) == Slots{0, 2}));
  CHECK((run_next(ring) == Slots{1, 3}));
}

void waits_for_company_from_arrival_on() {
  Ring ring({.capacity = 8, .max_batch_size = 2, .max_delay = 100});
  publish(ring, {.arrival = 1000});
  TakenBatch batch;
  CHECK(!ring.take(batch, 1099) && batch.retry_at == 1100 && batch.units.empty());
  CHECK((run_next(ring, 1100) == Slots{0}));
  publish(ring, {.arrival = 2000});
  publish(ring, {.arrival = 2001});
  CHECK((run_next(ring, 2001) == Slots{0, 1}));  // full: nothing to wait for
}

void lets_others_pass_while_waiting_for_company() {
  Ring ring({.capacity = 8, .max_batch_size = 2, .max_delay = 100});
  publish(ring, {.priority = 1, .arrival = 1050});
  publish(ring, {.arrival = 1000, .shape_key = 1});
  TakenBatch batch;
  CHECK(!ring.take(batch, 1090) && batch.retry_at == 1100 && batch.samples == 0);
  CHECK((run_next(ring, 1100) == Slots{1}));  // is ripe
  publish(ring, {.arrival = 1110, .shape_key = 2});
  publish(ring, {.arrival = 1120, .shape_key = 2});
  CHECK((run_next(ring, 1120) == Slots{2, 3}));  // are full
  CHECK(!ring.take(batch, 1149) && batch.retry_at == 1150 && batch.units.empty());
  CHECK((run_next(ring, 1150) == Slots{0}));
}

void lets_nobody_of_its_shape_pass() {
  Ring ring({.capacity = 8, .max_batch_size = 4, .max_delay = 100});
  publish(ring, {.priority = 1, .arrival = 1050});
  publish(ring, {.arrival = 1000});
  CHECK((run_next(ring, 1100) == Slots{0, 1}));  // the oldest of a batch ripens all of it
}

void waits_for_no_company_that_finds_no_room() {
  Ring ring({.capacity = 16, .max_batch_size = 8, .max_delay = 100});
  publish(ring, {.arrival = 1000}, 5);
  TakenBatch batch;
  CHECK(!ring.take(batch, 1010));
  publish(ring, {.arrival = 1010}, 4);
  CHECK((run_next(ring, 1010) == Slots{0}));
}

void hands_each_lane_one_batch() {
  Ring ring({.capacity = 8, .lanes = 2, .max_batch_size = 1});
  for (int i = 0; i < 3; ++i) publish(ring);
  TakenBatch first, second, third;
  CHECK(ring.take(first, 0) && first.lane == 0 && first.more);
  CHECK(ring.take(second, 0) && second.lane == 1 && !second.more);
  CHECK(!ring.take(third, 0) && third.lane == kNone);
  ring.release(first.units);
  ring.finish(0, true);
  CHECK(ring.take(third, 0) && third.lane == 0 && (slots_of(third) == Slots{2}));
}

void takes_a_lane_of_the_least_loaded_group() {
  Ring ring({.capacity = 16, .lanes = 6, .groups = 3, .max_batch_size = 1});
  TakenBatch batch;
  const auto next_lane = [&] {
    publish(ring);
    CHECK(ring.take(batch, 0));
    ring.release(batch.units);
    return batch.lane;
  };
  for (const std::uint32_t lane : {0u, 2u, 4u, 1u}) CHECK(next_lane() == lane);
  ring.finish(2, true);
  CHECK(next_lane() == 2);  // both lanes of its group were idle
  for (const std::uint32_t lane : {3u, 5u}) CHECK(next_lane() == lane);
  publish(ring);
  CHECK(!ring.take(batch, 0));
  ring.finish(4, true);
  CHECK(ring.take(batch, 0) && batch.lane == 4);
}

void shares_all_lanes_out() {
  Ring ring({.capacity = 64, .lanes = 32, .groups = 1, .max_batch_size = 1});
  TakenBatch batch;
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    publish(ring);
    CHECK(ring.take(batch, 0) && batch.lane == lane);
  }
  publish(ring);
  CHECK(!ring.take(batch, 0));
}

void says_when_more_than_half_is_in_use() {
  Ring ring({.capacity = 4, .arena_bytes = 256, .max_batch_size = 1});
  TakenBatch batch;
  const auto is_crowded = [&](std::uint64_t bytes) {
    CHECK(ring.publish(claim(ring, 1, bytes), {}, true) && ring.take(batch, 0));
    ring.finish(batch.lane, true);
    return batch.crowded;
  };
  const auto release = [&] { ring.release(batch.units); };
  CHECK(!is_crowded(128));
  release();
  CHECK(is_crowded(192));
  release();
  CHECK(!is_crowded(1) && !is_crowded(1) && is_crowded(1));
}

// --- Ends before a batch

void hands_expired_units_out_once() {
  Ring ring({.capacity = 8, .max_batch_size = 8});
  publish(ring, {.deadline = 100});
  publish(ring, {.priority = 3, .deadline = 50});
  publish(ring);
  TakenBatch batch;
  CHECK(ring.take(batch, 50));
  CHECK(batch.expired.size() == 1 && batch.expired[0].slot == 1);
  CHECK((slots_of(batch) == Slots{0, 2}));
  TakenBatch again;
  CHECK(!ring.take(again, 1000) && again.expired.empty());
}

void expires_units_while_every_lane_is_busy() {
  Ring ring({.capacity = 8, .max_batch_size = 1});
  publish(ring);
  TakenBatch running, batch;
  CHECK(ring.take(running, 0));
  publish(ring, {.deadline = 10});
  CHECK(!ring.take(batch, 10) && batch.expired.size() == 1);
}

void withdraws_what_no_lane_has() {
  Ring ring({.capacity = 4, .max_batch_size = 4});
  const Unit unit = publish(ring), other = publish(ring);
  CHECK(ring.withdraw(unit) && !ring.withdraw(unit));
  ring.release(unit);
  CHECK((run_next(ring) == Slots{other.slot}));
  CHECK(!ring.withdraw(other));
}

void does_not_withdraw_a_later_claim_of_the_slot() {
  Ring ring({.capacity = 4});
  const Unit old = publish(ring);
  CHECK(run_next(ring).size() == 1);
  const Unit later = publish(ring);
  CHECK(later.slot == old.slot && later.sequence != old.sequence);
  CHECK(!ring.withdraw(old) && ring.withdraw(later));
}

// --- Closing

void refuses_when_closed() {
  Ring ring({.capacity = 4, .max_batch_size = 4, .max_delay = 1000});
  const Unit held = claim(ring);
  const Unit published = publish(ring);
  ring.close();
  Unit unit;
  CHECK(ring.claim(1, 0, kNever, unit) == ClaimStatus::kClosed);
  CHECK(!ring.publish(held, {}, true));
  CHECK((run_next(ring, 1) == Slots{published.slot}));  // nobody will come: no delay
  ring.release(held);
  CHECK(ring.occupancy().free == 4);
}

void flushes_what_is_published() {
  Ring ring({.capacity = 4, .max_batch_size = 4});
  publish(ring);
  publish(ring, {.priority = 2}, 2);
  std::vector<Unit> units;
  ring.flush(units);
  CHECK(units.size() == 2 && run_next(ring).empty());
  CHECK(!ring.wait_idle(now()));  // they are not released yet
  ring.release(units);
  CHECK(ring.wait_idle(now()) && ring.occupancy().free == 4);
}

void is_idle_once_all_is_run_and_released() {
  Ring ring({.capacity = 4, .max_batch_size = 1});
  CHECK(ring.wait_idle(now()));
  publish(ring, {.deadline = 10});
  CHECK(!ring.wait_idle(now()));
  TakenBatch expired;
  CHECK(!ring.take(expired, 10));
  CHECK(!ring.wait_idle(now()));  // its taker has yet to tell the caller
  ring.release(expired.expired);
  CHECK(ring.wait_idle(now()));
  publish(ring);
  TakenBatch batch;
  CHECK(ring.take(batch, 0));
  ring.release(batch.units);
  CHECK(!ring.wait_idle(now()));
  ring.finish(batch.lane, true);
  CHECK(ring.wait_idle(now()));
}

}  // namespace

int main() {
  claims_neighbours_in_order();
  skips_slots_that_are_busy();
  never_wraps_a_unit();
  finds_a_run_across_its_cursor();
  starts_over_when_empty();
  stays_in_a_window_of_what_is_in_use();
  refuses_when_no_neighbours_are_free();
  waits_for_room_until_the_deadline();
  shares_the_arena();
  refuses_impossible_sizes();
  takes_what_is_published_in_slot_order();
  leaves_unpublished_claims_alone();
  runs_higher_priorities_first_and_each_in_order();
  fills_a_batch_up_with_lower_priorities();
  merges_up_to_the_limit();
  joins_equal_shapes_only();
  waits_for_company_from_arrival_on();
  lets_others_pass_while_waiting_for_company();
  lets_nobody_of_its_shape_pass();
  waits_for_no_company_that_finds_no_room();
  hands_each_lane_one_batch();
  takes_a_lane_of_the_least_loaded_group();
  shares_all_lanes_out();
  says_when_more_than_half_is_in_use();
  hands_expired_units_out_once();
  expires_units_while_every_lane_is_busy();
  withdraws_what_no_lane_has();
  does_not_withdraw_a_later_claim_of_the_slot();
  refuses_when_closed();
  flushes_what_is_published();
  is_idle_once_all_is_run_and_released();
}
