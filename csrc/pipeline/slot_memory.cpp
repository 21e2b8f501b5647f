#include "pipeline/slot_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "cuda/memory.hpp"
#include "cuda/stream.hpp"

namespace trtinfer::pipeline {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kTooLarge = std::uint64_t{1} << 62;  // sums of it do not overflow

std::size_t align(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

std::shared_ptr<std::byte> allocate(std::size_t bytes, std::optional<int> gpu) {
  if (gpu) {
    const cuda::CurrentDevice device(*gpu);
    return cuda::allocate_pinned(bytes);
  }
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return {static_cast<std::byte*>(memory), [bytes](std::byte* p) { ::munmap(p, bytes); }};
}

}  // namespace

SlotMemory::SlotMemory(std::vector<TensorSpec> inputs, std::uint32_t capacity,
                       std::uint64_t arena_bytes, std::optional<int> gpu)
    : inputs_(std::move(inputs)),
      is_static_(std::all_of(inputs_.begin(), inputs_.end(),
                             [](const TensorSpec& spec) { return spec.is_static(); })),
      for_gpu_(gpu.has_value()) {
  std::size_t total = 0;
  if (is_static_) {
    for (const TensorSpec& spec : inputs_) {
      base_.push_back(total);
      row_bytes_.push_back(byte_count(spec.type, spec.shape));
      total += align(row_bytes_.back() * capacity, kPage);
    }
  } else {
    total = arena_bytes;
  }
  memory_ = allocate(std::max(align(total, kPage), kPage), gpu);
}

std::uint64_t SlotMemory::unit_bytes(const std::vector<Shape>& shapes) const {
  if (is_static_) return 0;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    std::uint64_t bytes = element_bytes(inputs_[i].type);
    for (std::int64_t dim : shapes[i]) {
      if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim), &bytes)) return kTooLarge;
    }
    if (bytes > kTooLarge) return kTooLarge;
    total = std::min(kTooLarge, total + align(bytes, ring::Arena::kAlignment));
  }
  return std::max<std::uint64_t>(total, ring::Arena::kAlignment);
}

void SlotMemory::locate(const ring::Ring& ring, ring::Unit unit, const std::vector<Shape>& shapes,
                        std::vector<std::byte*>& pointers) const {
  pointers.resize(inputs_.size());
  std::size_t offset = is_static_ ? 0 : ring.arena_offset(unit);
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (is_static_) {
      pointers[i] = memory_.get() + base_[i] + row_bytes_[i] * unit.slot;
    } else {
      pointers[i] = memory_.get() + offset;
      offset += align(byte_count(inputs_[i].type, shapes[i]), ring::Arena::kAlignment);
    }
  }
}

}  // namespace trtinfer::pipeline
