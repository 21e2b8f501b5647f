#include "cuda/numa.hpp"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <fstream>

namespace trtinfer::cuda {

int numa_node(const std::string& address, const std::string& folder) {
  std::string name = address;  // CUDA's letters may be large, Linux's are small
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  std::ifstream file(folder + "/" + name + "/numa_node");
  int node = kNoNode;
  return file >> node ? node : kNoNode;
}

PreferredNode::PreferredNode(int node) {
  if (node < 0 || static_cast<std::size_t>(node) >= kMostNodes) return;
  if (::syscall(SYS_get_mempolicy, &mode_before_, nodes_before_.data(), kMostNodes, nullptr, 0) !=
      0) {
    return;
  }
  constexpr std::size_t kBits = 8 * sizeof(unsigned long);
  NodeSet nodes{};
  nodes[static_cast<std::size_t>(node) / kBits] = 1UL << (static_cast<std::size_t>(node) % kBits);
  // The system call ignores the last bit of the length that it is given.
  changed_ = ::syscall(SYS_set_mempolicy, MPOL_PREFERRED, nodes.data(), kMostNodes + 1) == 0;
}

PreferredNode::~PreferredNode() {
  if (changed_) {
    ::syscall(SYS_set_mempolicy, mode_before_, nodes_before_.data(), kMostNodes + 1);
  }
}

}  // namespace trtinfer::cuda
