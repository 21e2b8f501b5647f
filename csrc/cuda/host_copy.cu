#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/error.hpp"
#include "cuda/host_copy_kernels.hpp"

namespace trtinfer::cuda {
namespace {

// A read of host memory takes about a microsecond: what counts is how many are under way.
constexpr int kThreads = 256;
constexpr int kReadersEach = 32;  // thread blocks for each block of memory
constexpr int kMostWriters = 32;
constexpr std::size_t kBytesEachWriter = 4096;

__device__ std::uint64_t gpu_time() {
  std::uint64_t nanoseconds;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(nanoseconds));
  return nanoseconds;
}

__device__ bool is_aligned(const void* address, std::size_t stride) {
  return reinterpret_cast<std::uintptr_t>(address) % sizeof(uint4) == 0 &&
         stride % sizeof(uint4) == 0;
}

__device__ std::uint32_t first_word() { return blockIdx.x * kThreads + threadIdx.x; }
__device__ std::uint32_t step() { return gridDim.x * kThreads; }

// Loads several words before it stores the first, which the compiler would not: they might overlap.
template <class Word, class From, class To>
__device__ void copy_words(std::uint32_t count, const From& load, const To& place) {
  constexpr std::uint32_t kAtOnce = 4;
  for (std::uint32_t i = first_word(); i < count; i += kAtOnce * step()) {
    Word words[kAtOnce];
#pragma unroll
    for (std::uint32_t k = 0; k < kAtOnce; ++k) {
      if (i + k * step() < count) words[k] = load(i + k * step());
    }
#pragma unroll
    for (std::uint32_t k = 0; k < kAtOnce; ++k) {
      if (i + k * step() < count) *place(i + k * step()) = words[k];
    }
  }
}

__device__ void copy_aligned(const HostRows& block) {
  const auto each = static_cast<std::uint32_t>(block.rows.row_bytes / sizeof(uint4));
  const auto load = [&](std::uint32_t i) {
    const std::byte* row = block.from + i / each * block.rows.from_stride;
    return reinterpret_cast<const uint4*>(row)[i % each];
  };
  const auto place = [&](std::uint32_t i) {
    return reinterpret_cast<uint4*>(block.to + i / each * block.rows.to_stride) + i % each;
  };
  copy_words<uint4>(each * static_cast<std::uint32_t>(block.rows.rows), load, place);
}

// Whatever the source's alignment: a word out of the two that it lies across.
__device__ std::uint32_t unaligned_word(const std::byte* from) {
  const auto address = reinterpret_cast<std::uintptr_t>(from);
  const auto* words = reinterpret_cast<const std::uint32_t*>(address / 4 * 4);
  const unsigned shift = address % 4 * 8;
  return shift == 0 ? words[0] : __funnelshift_r(words[0], words[1], shift);
}

__device__ void copy_unaligned(const HostRows& block) {
  const auto rows = static_cast<std::uint32_t>(block.rows.rows);
  const auto each = static_cast<std::uint32_t>(block.rows.row_bytes / 4);
  const auto load = [&](std::uint32_t i) {
    return unaligned_word(block.from + i / each * block.rows.from_stride + i % each * 4);
  };
  const auto place = [&](std::uint32_t i) {
    return reinterpret_cast<std::uint32_t*>(block.to + i / each * block.rows.to_stride) + i % each;
  };
  copy_words<std::uint32_t>(each * rows, load, place);
  for (std::uint32_t row = first_word(); row < rows; row += step()) {
    for (std::size_t i = std::size_t{4} * each; i < block.rows.row_bytes; ++i) {
      block.to[row * block.rows.to_stride + i] = block.from[row * block.rows.from_stride + i];
    }
  }
}

__global__ void __launch_bounds__(kThreads) read_host(const HostRows* list, RunState* state) {
  const std::uint64_t start = gpu_time();
  __shared__ HostRows block;
  constexpr unsigned kWords = sizeof(HostRows) / sizeof(std::uint64_t);
  if (threadIdx.x < kWords) {
    reinterpret_cast<std::uint64_t*>(&block)[threadIdx.x] =
        reinterpret_cast<const std::uint64_t*>(list + blockIdx.y)[threadIdx.x];
  }
  __syncthreads();
  if (block.rows.rows == 0) return;
  const Rows& rows = block.rows;
  if (rows.row_bytes % 16 == 0 && is_aligned(block.from, rows.from_stride) &&
      is_aligned(block.to, rows.to_stride)) {
    copy_aligned(block);
  } else {
    copy_unaligned(block);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0 && blockIdx.y == 0) state->reading_from = start;
  atomicMax(reinterpret_cast<unsigned long long*>(&state->reading_to), gpu_time());
}

__global__ void start_writing(RunState* state) { state->writing_from = gpu_time(); }

__global__ void __launch_bounds__(kThreads) write_host(HostWrites writes) {
  RunState& state = *writes.state;
  // No block changes these before all have read them.
  const std::uint32_t run = state.runs + 1;
  const std::uint64_t start = state.writing_from != 0 ? state.writing_from : gpu_time();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    const bool reads = state.reading_to > state.reading_from;
    writes.report->reading =
        reads ? static_cast<std::uint32_t>(state.reading_to - state.reading_from) : 0;
    state.reading_to = 0;
  }
  for (std::uint32_t k = 0; k < writes.count; ++k) {
    // Both are allocations, so they are aligned.
    const auto& output = writes.outputs[k];
    const std::size_t words = output.bytes / sizeof(uint4);
    for (std::size_t i = first_word(); i < words; i += step()) {
      reinterpret_cast<uint4*>(output.to)[i] = reinterpret_cast<const uint4*>(output.from)[i];
    }
    for (std::size_t i = words * sizeof(uint4) + first_word(); i < output.bytes; i += step()) {
      output.to[i] = output.from[i];
    }
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence_system();  // behind the barrier: for what all threads wrote
  if (gridDim.x > 1) {
    if (atomicAdd(&state.blocks_done, 1) != gridDim.x - 1) return;
    state.blocks_done = 0;
    __threadfence_system();
  }
  state.runs = run;
  state.writing_from = 0;
  const std::uint64_t duration = gpu_time() - start;
  *reinterpret_cast<volatile std::uint64_t*>(writes.report) = duration << 32 | run;
}

}  // namespace

void launch_host_reader(const HostRows* list, std::uint32_t blocks, RunState* state, void* stream) {
  const dim3 grid(kReadersEach, blocks);
  read_host<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(list, state);
  check(cudaGetLastError(), "launch of the kernel that reads inputs");
}

void launch_writing_start(RunState* state, void* stream) {
  start_writing<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(state);
  check(cudaGetLastError(), "launch of the kernel that notes when outputs are there");
}

void launch_host_writer(const HostWrites& writes, void* stream) {
  std::size_t most = 0;
  for (std::uint32_t i = 0; i < writes.count; ++i) most = std::max(most, writes.outputs[i].bytes);
  const auto wanted = static_cast<int>(std::min<std::size_t>(most / kBytesEachWriter + 1, 1 << 20));
  const int blocks = std::min(wanted, kMostWriters);
  write_host<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(writes);
  check(cudaGetLastError(), "launch of the kernel that writes outputs");
}

}  // namespace trtinfer::cuda
