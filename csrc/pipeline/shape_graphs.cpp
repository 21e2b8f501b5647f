#include "pipeline/shape_graphs.hpp"

#include <algorithm>
#include <bit>

namespace trtinfer::pipeline {
namespace {

constexpr std::uint64_t kMostUses = 1024;  // between two captures

bool is_due(std::uint64_t use) { return std::has_single_bit(use) || use % kMostUses == 0; }

}  // namespace

std::list<ShapeGraph>::iterator ShapeGraphs::find(const std::vector<Shape>& inputs) {
  const auto found = std::find_if(graphs_.begin(), graphs_.end(),
                                  [&](const ShapeGraph& graph) { return graph.inputs == inputs; });
  if (found != graphs_.end()) graphs_.splice(graphs_.begin(), graphs_, found);
  return found;
}

ShapeGraph* ShapeGraphs::use(const std::vector<Shape>& inputs) {
  const auto found = find(inputs);
  if (found == graphs_.end() || is_due(found->uses + 1)) return nullptr;
  ++found->uses;
  return &*found;
}

ShapeGraph& ShapeGraphs::renew(const std::vector<Shape>& inputs) {
  if (find(inputs) != graphs_.end()) return graphs_.front();
  if (graphs_.size() < kMost) {
    graphs_.emplace_front();
  } else {  // whose graph may need no more than other parameters
    graphs_.splice(graphs_.begin(), graphs_, std::prev(graphs_.end()));
  }
  graphs_.front().inputs = inputs;
  graphs_.front().uses = 0;
  return graphs_.front();
}

}  // namespace trtinfer::pipeline
