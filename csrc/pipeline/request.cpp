#include "pipeline/request.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>

namespace trtinfer::pipeline {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmall = 4096;

std::size_t align(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  if (bytes <= kSmall) {  // in one piece with what counts its owners
    const auto block = std::make_shared_for_overwrite<std::byte[]>(std::max<std::size_t>(bytes, 1));
    return {block, block.get()};
  }
  void* block = std::aligned_alloc(kAlignment, align(bytes == 0 ? 1 : bytes));
  if (block == nullptr) throw std::bad_alloc();
  return {static_cast<std::byte*>(block), [](std::byte* p) { std::free(p); }};
}

/// The blocks that requests have left behind on a thread. The allocator's own cache holds a few of
/// a size, and many requests end at a time.
class SpareBlocks {
 public:
  void* take(std::size_t bytes) { return count_ > 0 ? blocks_[--count_] : ::operator new(bytes); }
  void give(void* block) {
    if (count_ == kMost || is_over_) return ::operator delete(block);
    if (count_ == 0) {
      [[maybe_unused]] static thread_local const AtThreadEnd at_thread_end;
    }
    blocks_[count_++] = block;
  }

 private:
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr std::size_t kMost = 0;  // they look for uses of what is no more
#else
  static constexpr std::size_t kMost = 256;
#endif
  struct AtThreadEnd {
    ~AtThreadEnd();
  };

  std::array<void*, std::max<std::size_t>(kMost, 1)> blocks_;
  std::size_t count_;
  bool is_over_;  // requests may still end while a thread does
};

// Without a destructor, as the last request may end after all of them.
constinit thread_local SpareBlocks spare_blocks{};

SpareBlocks::AtThreadEnd::~AtThreadEnd() {
  spare_blocks.is_over_ = true;
  while (spare_blocks.count_ > 0) ::operator delete(spare_blocks.blocks_[--spare_blocks.count_]);
}

template <typename T>
struct FromSpareBlocks {
  using value_type = T;

  FromSpareBlocks() = default;
  template <typename Other>
  explicit(false) FromSpareBlocks(const FromSpareBlocks<Other>& /*other*/) {}

  T* allocate(std::size_t count) {
    return static_cast<T*>(spare_blocks.take(count * sizeof(T)));  // of one type, one at a time
  }
  void deallocate(T* block, std::size_t /*count*/) { spare_blocks.give(block); }

  template <typename Other>
  bool operator==(const FromSpareBlocks<Other>& /*other*/) const {
    return true;
  }
};

Shape with_rows(const Shape& row, std::uint32_t rows, bool batched, bool has_batch_axis) {
  Shape shape = row;
  if (batched && has_batch_axis) shape.insert(shape.begin(), rows);
  return shape;
}

}  // namespace

std::atomic<std::int64_t> Request::alive_{0};

Request::Request(std::uint32_t rows, bool has_batch_axis)
    : rows(rows), has_batch_axis(has_batch_axis) {
  alive_.fetch_add(1, std::memory_order_relaxed);
}

Request::~Request() { alive_.fetch_sub(1, std::memory_order_relaxed); }

std::shared_ptr<Request> Request::make(std::uint32_t rows, bool has_batch_axis) {
  return std::allocate_shared<Request>(FromSpareBlocks<Request>(), rows, has_batch_axis);
}

Outcome Request::outcome() const {
  const std::uint32_t state = state_.load(std::memory_order_acquire);
  return state == kResolving ? Outcome::kPending : static_cast<Outcome>(state);
}

void Request::allocate_outputs(const std::vector<TensorSpec>& specs) {
  std::size_t total = 0;
  for (const TensorSpec& spec : specs) {
    if (spec.is_static()) total += align(byte_count(spec.type, spec.shape) * rows);
  }
  outputs.resize(specs.size());
  if (total == 0) return;
  std::shared_ptr<std::byte> block;
  if (total > kNearOutputs) {
    block = allocate(total);
  } else {
    block = {block, static_cast<std::byte*>(memory_.allocate(total))};  // with no owner
  }
  std::size_t offset = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!specs[i].is_static()) continue;
    if (has_batch_axis) outputs[i].shape = with_rows(specs[i].shape, rows, true, true);
    outputs[i].data = {block, block.get() + offset};
    offset += align(byte_count(specs[i].type, specs[i].shape) * rows);
  }
}

std::byte* Request::output(std::size_t index, const TensorSpec& spec, const Shape& row,
                           bool batched) {
  OutputTensor& tensor = outputs[index];
  if (spec.is_static() && tensor.data != nullptr) {  // as it was from the start
    return row == spec.shape ? tensor.data.get() : nullptr;
  }
  const std::lock_guard lock(outputs_mutex_);
  Shape shape = with_rows(row, rows, batched, has_batch_axis);
  if (tensor.data == nullptr) {
    tensor.data = allocate(byte_count(spec.type, row) * (batched ? rows : 1));
    tensor.shape = std::move(shape);
  } else if (tensor.shape != shape) {
    return nullptr;
  }
  return tensor.data.get();
}

void Request::keep_output(std::size_t index, const Shape& row, bool batched,
                          std::shared_ptr<std::byte> data, int device) {
  outputs[index] = {with_rows(row, rows, batched, has_batch_axis), std::move(data), device};
}

}  // namespace trtinfer::pipeline
