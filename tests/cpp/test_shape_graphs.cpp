// Which shapes have a graph, and when it is captured anew.
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "pipeline/shape_graphs.hpp"

using trtinfer::pipeline::Shape;
using trtinfer::pipeline::ShapeGraph;
using trtinfer::pipeline::ShapeGraphs;

namespace {

std::vector<Shape> rows(std::int64_t side) { return {{3, side, side}}; }

/// True when it had to be captured.
bool use(ShapeGraphs& graphs, std::int64_t side) {
  if (graphs.use(rows(side)) != nullptr) return false;
  ++graphs.renew(rows(side)).uses;
  return true;
}

void captured_at_powers_of_two() {
  ShapeGraphs graphs;
  std::vector<int> captured;
  for (int i = 1; i <= 4000; ++i) {
    if (use(graphs, 8)) captured.push_back(i);
  }
  CHECK((captured == std::vector{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3072}));
}

void capture_that_failed_is_tried_again() {
  ShapeGraphs graphs;
  graphs.renew(rows(8));  // and nobody used it
  CHECK(graphs.use(rows(8)) == nullptr);
  CHECK(use(graphs, 8) && use(graphs, 8) && !use(graphs, 8));
}

void most_recent_shapes_are_kept() {
  ShapeGraphs graphs;
  constexpr auto kMost = static_cast<std::int64_t>(ShapeGraphs::kMost);
  for (std::int64_t side = 1; side <= kMost; ++side) {
    for (int i = 0; i < 2; ++i) CHECK(use(graphs, side));
  }
  CHECK(!use(graphs, 1));  // its third use: 2 is the oldest now
  CHECK(use(graphs, kMost + 1));
  CHECK(!use(graphs, 3) && use(graphs, 2));
  graphs.clear();
  CHECK(use(graphs, 3));
}

void each_graph_is_of_its_shape() {
  ShapeGraphs graphs;
  for (std::int64_t side = 1; side <= 3; ++side) {
    for (int i = 0; i < 3; ++i) use(graphs, side);
  }
  ShapeGraph* graph = graphs.use(rows(2));
  CHECK(graph == nullptr);  // its fourth use
  CHECK(graphs.renew(rows(2)).inputs == rows(2));
  CHECK(graphs.renew(rows(2)).uses == 3);
}

}  // namespace

int main() {
  captured_at_powers_of_two();
  capture_that_failed_is_tried_again();
  most_recent_shapes_are_kept();
  each_graph_is_of_its_shape();
}
