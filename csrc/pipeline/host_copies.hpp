#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/host_copy.hpp"
#include "cuda/stream.hpp"

namespace trtinfer::pipeline {

/// What a batch brings from pinned memory to the GPU; neighbouring blocks are one.
class HostCopies {
 public:
  void clear();

  /// One block; joined to the last one where both of its ends follow that one's at the same
  /// distance of less than `gap` bytes, which are then copied, too.
  void add(std::byte* to, const std::byte* from, std::size_t bytes, std::size_t gap = 1);

  /// The same for rows that lie apart.
  void add(std::byte* to, const std::byte* from, const cuda::Rows& rows);

  /// Whether a kernel should read them that takes so many blocks.
  bool suit(std::uint32_t most_blocks) const;

  /// Leaves them to the next launch of the reader.
  void leave_to(cuda::HostReader& reader) const;

  /// Enqueues them for the copy engines.
  void enqueue(const cuda::Stream& stream) const;

  /// Up to as many bytes a kernel reads them in less time than the copy engines need
  /// (bench/README.md).
  static constexpr std::size_t kReadBytes = 1 << 20;

 private:
  struct Copy {
    std::byte* to;
    const std::byte* from;
    cuda::Rows rows;
  };

  std::vector<Copy> copies_;
  std::size_t bytes_ = 0;
};

}  // namespace trtinfer::pipeline
