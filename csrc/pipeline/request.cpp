#include "pipeline/request.hpp"

#include <algorithm>
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
  const std::shared_ptr<std::byte> block = allocate(total);
  std::size_t offset = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!specs[i].is_static()) continue;
    outputs[i].shape = with_rows(specs[i].shape, rows, true, has_batch_axis);
    outputs[i].data = {block, block.get() + offset};
    offset += align(byte_count(specs[i].type, specs[i].shape) * rows);
  }
}

std::byte* Request::output(std::size_t index, const TensorSpec& spec, const Shape& row,
                           bool batched) {
  const std::lock_guard lock(outputs_mutex_);
  OutputTensor& tensor = outputs[index];
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
