// Memory policies of a thread, and what Linux says of the nodes of devices.
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "check.hpp"
#include "cuda/numa.hpp"

using namespace trtinfer::cuda;

namespace {

using Policy = std::pair<int, std::array<unsigned long, 16>>;

/// Of this thread; mode -1 where there are no policies.
Policy policy() {
  Policy found{};
  if (::syscall(SYS_get_mempolicy, &found.first, found.second.data(), 1024, nullptr, 0) != 0) {
    found.first = -1;
  }
  return found;
}

void prefers_a_node_for_a_while() {
  const Policy before = policy();
  {
    const PreferredNode near(0);
    const Policy now = policy();
    CHECK(now == before || (now.first == MPOL_PREFERRED && now.second[0] == 1));
  }
  CHECK(policy() == before);
}

void goes_back_to_another_policy() {
  const Policy before = policy();
  const unsigned long nodes = 1;
  if (::syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 2) != 0) return;
  const Policy bound = policy();
  {
    const PreferredNode near(0);
  }
  CHECK(policy() == bound && bound != before);
  ::syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0);
}

void leaves_the_policy_for_nodes_that_are_not_there() {
  const Policy before = policy();
  for (const int node : {kNoNode, -7, 1023, 1024, 1 << 30}) {
    const PreferredNode near(node);
    CHECK(policy() == before);
  }
}

void reads_the_node_of_a_device() {
  const auto folder =
      std::filesystem::temp_directory_path() / ("trtinfer-numa-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder / "0000:1b:00.0");
  std::ofstream(folder / "0000:1b:00.0" / "numa_node") << "1\n";
  CHECK(numa_node("0000:1B:00.0", folder) == 1 && numa_node("0000:1b:00.0", folder) == 1);
  CHECK(numa_node("0000:1c:00.0", folder) == kNoNode);
  std::ofstream(folder / "0000:1b:00.0" / "numa_node") << "-1\n";
  CHECK(numa_node("0000:1b:00.0", folder) == kNoNode);
  std::ofstream(folder / "0000:1b:00.0" / "numa_node") << "none\n";
  CHECK(numa_node("0000:1b:00.0", folder) == kNoNode);
  std::filesystem::remove_all(folder);
}

}  // namespace

int main() {
  prefers_a_node_for_a_while();
  goes_back_to_another_policy();
  leaves_the_policy_for_nodes_that_are_not_there();
  reads_the_node_of_a_device();
}
