// Host memory near a GPU, on machines whose memory is in several nodes.
#pragma once

#include <array>
#include <string>

namespace trtinfer::cuda {

inline constexpr int kNoNode = -1;

// The node of a PCI device ("0000:1b:00.0"); kNoNode where the machine has none or does not say.
// `folder` is where Linux describes the devices.
int numa_node(const std::string& address, const std::string& folder = "/sys/bus/pci/devices");

// Pages that the calling thread allocates while this lives are taken from a node, as long as it has
// some, and as before afterwards. Does nothing for kNoNode, and where the policy cannot be changed.
class PreferredNode {
 public:
  explicit PreferredNode(int node);
  ~PreferredNode();
  PreferredNode(const PreferredNode&) = delete;
  PreferredNode& operator=(const PreferredNode&) = delete;

 private:
  static constexpr std::size_t kMostNodes = 1024;  // of any Linux
  using NodeSet = std::array<unsigned long, kMostNodes / 8 / sizeof(unsigned long)>;

  bool changed_ = false;
  int mode_before_ = 0;
  NodeSet nodes_before_{};
};

}  // namespace trtinfer::cuda
