#include "pipeline/image_transfer.hpp"

#include <algorithm>
#include <utility>

namespace trtinfer::pipeline {
namespace {

using preprocess::Resampling;
using preprocess::SourceWindow;

constexpr std::size_t kAlignment = 64;  // as the arena's, so that neighbours stay so
constexpr std::size_t kFirstTableBytes = 4 << 20;

// Whole rows cross in one piece when most of each is needed; else only the needed columns.
constexpr double kWholeRows = 0.75;

std::size_t align(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool takes_whole_rows(const Resampling& resampling) {
  return resampling.source_window().columns >=
         kWholeRows * static_cast<double>(resampling.geometry.source_width);
}

std::size_t row_stride(const Resampling& resampling) {
  if (takes_whole_rows(resampling)) {
    return static_cast<std::size_t>(resampling.geometry.source_width) * 3;
  }
  return (static_cast<std::size_t>(resampling.source_window().columns) * 3 + 15) / 16 * 16;
}

bool is_of_size(const Resampling& resampling, const Shape& shape) {
  return resampling.geometry.source_height == shape[0] &&
         resampling.geometry.source_width == shape[1];
}

// Of the bytes that cross of each row, the first.
std::size_t first_byte(const Resampling& resampling) {
  if (takes_whole_rows(resampling)) return 0;
  return static_cast<std::size_t>(resampling.source_window().first_column) * 3;
}

std::size_t row_bytes(const Resampling& resampling) {
  const bool whole = takes_whole_rows(resampling);
  return static_cast<std::size_t>(whole ? resampling.geometry.source_width
                                        : resampling.source_window().columns) *
         3;
}

// What is needed of an image that lies on a GPU.
DeviceInput window_of(DeviceInput image, const Resampling& resampling) {
  const SourceWindow window = resampling.source_window();
  if (image.blocks == 1) {
    image.stride = static_cast<std::size_t>(resampling.geometry.source_width) * 3;
  }
  image.data += image.stride * static_cast<std::size_t>(window.first_row) + first_byte(resampling);
  image.blocks = static_cast<std::size_t>(window.rows);
  image.block_bytes = row_bytes(resampling);
  return image;
}

}  // namespace

ImageTransfer::ImageTransfer(const preprocess::GpuPreprocessor& preprocessor)
    : preprocessor_(preprocessor) {
  reserve_table(kFirstTableBytes);
}

bool ImageTransfer::find_resamplings(const Batch& batch) {
  bool is_like_last = resamplings_.size() == batch.units.size();
  resamplings_.resize(batch.units.size());
  const Resampling* before = nullptr;
  for (std::size_t i = 0; i < batch.units.size(); ++i) {
    const Shape& shape = batch.units[i].shapes->front();
    if (resamplings_[i] == nullptr || !is_of_size(*resamplings_[i], shape)) {
      is_like_last = false;
      // Of images of one size only the first is looked up, which takes a lock.
      const bool is_like_before = before != nullptr && is_of_size(*before, shape);
      resamplings_[i] =
          is_like_before ? resamplings_[i - 1] : preprocessor_.resampling(shape[0], shape[1]);
    }
    before = resamplings_[i].get();
  }
  return is_like_last;
}

void ImageTransfer::plan() {
  sources_.clear();
  offsets_.clear();
  std::size_t offset = kAlignment;  // the kernel may read up to 16 bytes before a window
  for (const auto& resampling : resamplings_) {
    const std::size_t stride = row_stride(*resampling);
    offsets_.push_back(offset);
    sources_.push_back({resampling.get(), nullptr, static_cast<std::ptrdiff_t>(stride)});
    offset = align(offset + stride * static_cast<std::size_t>(resampling->source_window().rows));
  }
  reserve_pixels(offset + kAlignment);
}

void ImageTransfer::reserve_pixels(std::size_t bytes) {
  if (bytes <= pixel_bytes_) return;
  pixel_bytes_ = 0;  // what follows may fail
  pixels_.reset();
  pixels_ = cuda::allocate_device(2 * bytes);
  pixel_bytes_ = 2 * bytes;
}

void ImageTransfer::reserve_table(std::size_t bytes) {
  if (bytes <= table_bytes_) return;
  table_bytes_ = 0;  // what follows may fail
  table_.reset();
  table_ = cuda::allocate_device(2 * bytes);
  host_table_ = cuda::allocate_pinned(2 * bytes);
  table_bytes_ = 2 * bytes;
}

void ImageTransfer::send_pixels(const Batch& batch, HostCopies& copies,
                                const cuda::Stream& stream) {
  for (std::size_t i = 0; i < batch.units.size(); ++i) {
    const Resampling& resampling = *resamplings_[i];
    const SourceWindow window = resampling.source_window();
    const auto stride = static_cast<std::size_t>(sources_[i].row_stride);
    const auto width = static_cast<std::size_t>(resampling.geometry.source_width) * 3;
    const std::byte* image = batch.units[i].inputs->front();
    std::byte* to = pixels_.get() + offsets_[i];
    const std::byte* from = image + width * static_cast<std::size_t>(window.first_row);
    // Where row 0, column 0 would lie; the kernel stays inside the window.
    const std::byte* origin =
        to - stride * static_cast<std::size_t>(window.first_row) - first_byte(resampling);
    if (const DeviceInput* input = batch.units[i].device_input(0)) {
      copy_async(window_of(*input, resampling), to, stride, stream);
    } else if (takes_whole_rows(resampling)) {
      copies.add(to, from, stride * static_cast<std::size_t>(window.rows), kAlignment);
    } else {
      copies.add(to, from + first_byte(resampling),
                 {static_cast<std::size_t>(window.rows), row_bytes(resampling), stride, width});
    }
    sources_[i].data = reinterpret_cast<const std::uint8_t*>(origin);
  }
}

void ImageTransfer::send(const Batch& batch, std::uint32_t images, HostCopies& copies,
                         const cuda::Stream& stream) {
  const std::uint32_t before = std::exchange(images_, 0);  // what follows may fail
  const bool is_like_last = find_resamplings(batch) && images == before;
  if (!is_like_last) plan();
  send_pixels(batch, copies, stream);
  if (!is_like_last) send_table(images, stream);
  images_ = images;
}

void ImageTransfer::send_table(std::uint32_t images, const cuda::Stream& stream) {
  sources_.resize(images, sources_.front());
  const std::size_t bytes = preprocess::batch_bytes(sources_);
  reserve_table(bytes);
  preprocess::write_batch(sources_, host_table_.get());
  cuda::copy_async(table_.get(), host_table_.get(), bytes, stream);
}

}  // namespace trtinfer::pipeline
