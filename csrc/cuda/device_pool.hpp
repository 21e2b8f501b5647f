// Device memory that callers keep for a while, used again when they give it back.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/memory.hpp"
#include "cuda/stream.hpp"

namespace trtinfer::cuda {

// Memory of one GPU. Outlived by none of its blocks; for any number of threads.
class DevicePool : public std::enable_shared_from_this<DevicePool> {
 public:
  explicit DevicePool(int device) : device_(device) {}

  // Bytes of that GPU, which is current; throws Error. They come back with their last owner, and
  // are used again when all is done that was enqueued by then on the default stream and on the
  // streams that wait for it.
  std::shared_ptr<std::byte> take(std::size_t bytes);

  int device() const noexcept { return device_; }

 private:
  struct Block {
    DeviceMemory memory;
    std::size_t bytes;
    Event returned;
  };

  std::shared_ptr<Block> find(std::size_t bytes);
  void give_back(std::shared_ptr<Block> block) noexcept;

  const int device_;
  std::mutex mutex_;
  std::multimap<std::size_t, std::shared_ptr<Block>> free_;  // by size
};

}  // namespace trtinfer::cuda
