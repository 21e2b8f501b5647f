#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "cuda/graph.hpp"
#include "pipeline/tensor_spec.hpp"

namespace trtinfer::pipeline {

/// A batch's work as it is for rows of these shapes.
struct ShapeGraph {
  std::vector<Shape> inputs, outputs;  ///< rows of the tensors
  cuda::Graph graph;
  std::uint64_t uses = 0;
};

/// The graphs of one batch size whose rows vary: of the shapes that came last.
class ShapeGraphs {
 public:
  /// The one for such rows, for one more use; null when it has to be captured before: it is new, or
  /// its kernels may have been replaced since. TensorRT-RTX starts with some that suit any shape
  /// and compiles better ones meanwhile, so it is captured anew for its 2nd, 4th, 8th, ... use, and
  /// each 1,024th.
  ShapeGraph* use(const std::vector<Shape>& inputs);

  /// To be captured for the use that `use` refused. Takes the place of the one that is unused for
  /// the longest time, once there are kMost.
  ShapeGraph& renew(const std::vector<Shape>& inputs);

  void clear() { graphs_.clear(); }

  static constexpr std::size_t kMost = 16;

 private:
  std::list<ShapeGraph>::iterator find(const std::vector<Shape>& inputs);

  std::list<ShapeGraph> graphs_;  // the last used one is the first
};

}  // namespace trtinfer::pipeline
