#include "bindings/tensors.hpp"

#include <string>

namespace py = pybind11;

namespace trtinfer::bindings {

std::vector<Layout::Tensor> make_tensors(const std::vector<TensorTuple>& tuples) {
  std::vector<Layout::Tensor> tensors;
  for (const auto& [name, type, dtype, shape] : tuples) {
    tensors.push_back(
        {{name.cast<std::string>(), static_cast<pipeline::ElementType>(type), shape}, name, dtype});
  }
  return tensors;
}

std::vector<pipeline::TensorSpec> make_specs(const std::vector<TensorTuple>& tuples) {
  std::vector<pipeline::TensorSpec> specs;
  for (const Layout::Tensor& tensor : make_tensors(tuples)) specs.push_back(tensor.spec);
  return specs;
}

}  // namespace trtinfer::bindings
