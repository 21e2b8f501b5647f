#include "cuda/host_copy.hpp"

#include <atomic>
#include <cstring>

#include "cuda/host_copy_kernels.hpp"

namespace trtinfer::cuda {
namespace {

constexpr std::size_t kWord = sizeof(std::uint32_t);

}  // namespace

HostReader::HostReader(std::uint32_t most_blocks)
    : list_(allocate_pinned(most_blocks * sizeof(HostRows))) {
  std::memset(list_.get(), 0, most_blocks * sizeof(HostRows));
}

bool HostReader::reads(const void* to, const Rows& rows) {
  return reinterpret_cast<std::uintptr_t>(to) % kWord == 0 &&
         (rows.rows == 1 || rows.to_stride % kWord == 0);
}

void HostReader::clear() {
  std::memset(list_.get(), 0, blocks_ * sizeof(HostRows));
  blocks_ = 0;
}

void HostReader::add(void* to, const void* from, const Rows& rows) {
  HostRows block{static_cast<const std::byte*>(from), static_cast<std::byte*>(to), rows};
  if (rows.rows == 1) block.rows.from_stride = block.rows.to_stride = 0;
  std::memcpy(list_.get() + blocks_++ * sizeof(HostRows), &block, sizeof(HostRows));
}

void HostReader::launch(std::uint32_t blocks, const Stream& stream) const {
  launch_host_reader(reinterpret_cast<const HostRows*>(list_.get()), blocks, stream.get());
}

HostWriter::HostWriter()
    : counters_(allocate_device(2 * sizeof(std::uint32_t))), ended_(allocate_pinned(kWord)) {
  std::memset(ended_.get(), 0, kWord);
  const Stream stream;
  clear_async(counters_.get(), 2 * sizeof(std::uint32_t), stream);
  stream.synchronize();
}

void HostWriter::launch(std::span<const Output> outputs, const Stream& stream) const {
  HostWrites writes;
  for (const Output& output : outputs) {
    writes.outputs[writes.count++] = {static_cast<const std::byte*>(output.from),
                                      static_cast<std::byte*>(output.to), output.bytes};
  }
  writes.counters = reinterpret_cast<std::uint32_t*>(counters_.get());
  writes.ended = reinterpret_cast<std::uint32_t*>(ended_.get());
  launch_host_writer(writes, stream.get());
}

bool HostWriter::done() const {
  // The GPU writes it after all outputs, each with a fence that the host is in.
  auto* const ended = reinterpret_cast<std::uint32_t*>(ended_.get());
  return std::atomic_ref(*ended).load(std::memory_order_acquire) == expected_;
}

#if !TRTINFER_CUDA
void launch_host_reader(const HostRows*, std::uint32_t, void*) {}
void launch_host_writer(const HostWrites&, void*) {}
#endif

}  // namespace trtinfer::cuda
