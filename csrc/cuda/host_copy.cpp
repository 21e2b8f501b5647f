#include "cuda/host_copy.hpp"

#include <atomic>
#include <cstring>

#include "cuda/host_copy_kernels.hpp"

namespace trtinfer::cuda {

HostReader::HostReader(std::uint32_t most_blocks, const HostWriter& writer)
    : list_(allocate_pinned(most_blocks * sizeof(HostRows))),
      state_(reinterpret_cast<RunState*>(writer.state_.get())) {
  std::memset(list_.get(), 0, most_blocks * sizeof(HostRows));
}

bool HostReader::reads(const void* to, const Rows& rows) {
  constexpr std::size_t kWord = sizeof(std::uint32_t);
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
  launch_host_reader(reinterpret_cast<const HostRows*>(list_.get()), blocks, state_, stream.get());
}

HostWriter::HostWriter()
    : state_(allocate_device(sizeof(RunState))), report_(allocate_pinned(sizeof(RunReport))) {
  std::memset(report_.get(), 0, sizeof(RunReport));
  const Stream stream;
  clear_async(state_.get(), sizeof(RunState), stream);
  stream.synchronize();
}

RunReport& HostWriter::report() const { return *reinterpret_cast<RunReport*>(report_.get()); }

void HostWriter::start(const Stream& stream) const {
  launch_writing_start(reinterpret_cast<RunState*>(state_.get()), stream.get());
}

void HostWriter::launch(std::span<const Output> outputs, const Stream& stream) const {
  HostWrites writes;
  for (const Output& output : outputs) {
    writes.outputs[writes.count++] = {static_cast<const std::byte*>(output.from),
                                      static_cast<std::byte*>(output.to), output.bytes};
  }
  writes.state = reinterpret_cast<RunState*>(state_.get());
  writes.report = &report();
  launch_host_writer(writes, stream.get());
}

bool HostWriter::done() const {
  // The GPU writes it after all outputs, each with a fence that the host is in.
  return std::atomic_ref(report().runs).load(std::memory_order_acquire) == expected_;
}

HostCopyTimes HostWriter::times() const { return {report().reading, report().writing}; }

#if !TRTINFER_CUDA
void launch_host_reader(const HostRows*, std::uint32_t, RunState*, void*) {}
void launch_writing_start(RunState*, void*) {}
void launch_host_writer(const HostWrites&, void*) {}
#endif

}  // namespace trtinfer::cuda
