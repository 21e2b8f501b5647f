#include "pipeline/executor.hpp"

#include <algorithm>
#include <string>

namespace trtinfer::pipeline {

std::uint64_t row_key(const std::vector<Shape>& shapes) {
  std::uint64_t key = 0xcbf29ce484222325u;  // FNV-1a over the dimensions of one row
  for (const Shape& shape : shapes) {
    for (std::size_t i = 1; i < shape.size(); ++i) {
      key = (key ^ static_cast<std::uint64_t>(shape[i])) * 0x100000001b3u;
    }
  }
  return key;
}

std::string image_refusal(const Shape& image) {
  if (image[0] > 0 && image[1] > 0) return {};
  return "an image of " + std::to_string(image[0]) + " x " + std::to_string(image[1]) +
         " pixels cannot be resized";
}

void check_rows_agree(const Batch& batch) {
  if (batch.units.size() < 2) return;  // may have no rows at all
  const std::vector<Shape>& first = *batch.units.front().shapes;
  for (const BatchUnit& unit : batch.units) {
    for (std::size_t i = 0; i < first.size(); ++i) {
      const Shape& shape = (*unit.shapes)[i];
      if (!std::equal(shape.begin() + 1, shape.end(), first[i].begin() + 1, first[i].end())) {
        throw BatchError("requests of different shapes met in a batch");
      }
    }
  }
}

}  // namespace trtinfer::pipeline
