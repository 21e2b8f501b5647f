#include "cuda/device_pool.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace trtinfer::cuda {
namespace {

constexpr std::size_t kGranularity = 512;
void* const kDefaultStream = nullptr;

std::size_t round_up(std::size_t bytes) {
  return (bytes / kGranularity + 1) * kGranularity;  // never none
}

}  // namespace

std::shared_ptr<std::byte> DevicePool::take(std::size_t bytes) {
  bytes = round_up(bytes);
  std::shared_ptr<Block> block = find(bytes);
  if (block == nullptr) block.reset(new Block{allocate_device(bytes), bytes, Event()});
  std::byte* const memory = block->memory.get();
  return {memory, [pool = shared_from_this(), block](std::byte*) { pool->give_back(block); }};
}

std::shared_ptr<DevicePool::Block> DevicePool::find(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto end = free_.upper_bound(2 * bytes);
  const auto found = std::find_if(free_.lower_bound(bytes), end,
                                  [](const auto& block) { return block.second->returned.done(); });
  if (found == end) return nullptr;
  std::shared_ptr<Block> block = std::move(found->second);
  free_.erase(found);
  return block;
}

void DevicePool::give_back(std::shared_ptr<Block> block) noexcept {
  try {
    const CurrentDevice current(device_);
    block->returned.record(kDefaultStream);
    const std::lock_guard lock(mutex_);
    free_.emplace(block->bytes, std::move(block));
  } catch (const std::exception&) {  // a GPU that failed, or no memory: it is freed instead
    return;
  }
}

}  // namespace trtinfer::cuda
