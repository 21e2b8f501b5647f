#include "pipeline/host_copies.hpp"

#include <algorithm>

namespace trtinfer::pipeline {

void HostCopies::clear() {
  copies_.clear();
  bytes_ = 0;
}

void HostCopies::add(std::byte* to, const std::byte* from, std::size_t bytes, std::size_t gap) {
  if (!copies_.empty() && copies_.back().rows.rows == 1) {
    Copy& last = copies_.back();
    const std::ptrdiff_t shift = from - last.from;
    const auto end = static_cast<std::ptrdiff_t>(last.rows.row_bytes);
    if (to - last.to == shift && shift >= end && shift < end + static_cast<std::ptrdiff_t>(gap)) {
      const std::size_t joined = static_cast<std::size_t>(shift) + bytes;
      bytes_ += joined - last.rows.row_bytes;
      last.rows.row_bytes = joined;
      return;
    }
  }
  add(to, from, {1, bytes, bytes, bytes});
}

void HostCopies::add(std::byte* to, const std::byte* from, const cuda::Rows& rows) {
  copies_.push_back({to, from, rows});
  bytes_ += rows.rows * rows.row_bytes;
}

bool HostCopies::suit(std::uint32_t most_blocks) const {
  return bytes_ <= kReadBytes && copies_.size() <= most_blocks &&
         std::all_of(copies_.begin(), copies_.end(),
                     [](const Copy& copy) { return cuda::HostReader::reads(copy.to, copy.rows); });
}

void HostCopies::leave_to(cuda::HostReader& reader) const {
  for (const Copy& copy : copies_) reader.add(copy.to, copy.from, copy.rows);
}

void HostCopies::enqueue(const cuda::Stream& stream) const {
  for (const Copy& copy : copies_) {
    cuda::copy_rows_async(copy.to, copy.from, copy.rows, stream);
  }
}

}  // namespace trtinfer::pipeline
