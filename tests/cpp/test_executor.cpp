// Which units may be in a batch together, and which in none.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"

using namespace trtinfer::pipeline;

namespace {

/// Takes rows of up to two floats.
class Limited : public AddOne {
 public:
  std::string refusal(const std::vector<Shape>& shapes) const override {
    return shapes[0][1] <= 2 ? "" : "at most two";
  }
};

void keys_tell_rows_apart_but_not_their_number() {
  CHECK(row_key({{1, 3, 4}}) == row_key({{8, 3, 4}}));
  CHECK(row_key({{1, 3, 4}}) != row_key({{1, 4, 3}}));
  CHECK(row_key({{1, 3}, {1, 4}}) != row_key({{1, 4}, {1, 3}}));
}

void rows_of_two_shapes_are_no_batch() {
  const std::vector<Shape> some{{1, 3}}, more{{4, 3}}, other{{1, 4}}, scalar{{}};
  const auto unit = [](const std::vector<Shape>& shapes) {
    return BatchUnit{nullptr, 1, 0, nullptr, &shapes};
  };
  const std::array mixed{unit(some), unit(other)}, equal{unit(some), unit(more)};
  const std::array alone{unit(scalar)};
  CHECK_THROWS((check_rows_agree({0, 2, mixed}), 0), BatchError);
  check_rows_agree({0, 5, equal});
  check_rows_agree({0, 1, alone});
}

void a_refused_shape_takes_no_slot() {
  const auto pipeline = std::make_shared<Pipeline>(
      std::make_shared<Limited>(), std::vector<TensorSpec>{{"x", ElementType::kFloat32, {-1}}},
      trtinfer::ring::RingOptions{.capacity = 4, .arena_bytes = 4096, .max_batch_size = 4});
  CHECK_THROWS(pipeline->claim(1, {{1, 3}}, 0), UnfitError);
  CHECK(pipeline->occupancy().free == 4 && pipeline->stats().rejected == 0);
  CHECK(pipeline->claim(1, {{1, 2}}, 0).held());
}

}  // namespace

int main() {
  keys_tell_rows_apart_but_not_their_number();
  rows_of_two_shapes_are_no_batch();
  a_refused_shape_takes_no_slot();
  CHECK(Request::alive() == 0 && Pipeline::alive() == 0);
}
