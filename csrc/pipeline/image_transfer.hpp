#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/memory.hpp"
#include "cuda/stream.hpp"
#include "pipeline/executor.hpp"
#include "pipeline/host_copies.hpp"
#include "preprocess/batch.hpp"
#include "preprocess/gpu.hpp"

namespace trtinfer::pipeline {

/// Brings the images of a batch to the GPU: of each the window that its output is made of, and a
/// table that tells the preprocessing kernel where they lie. For one lane, on the current device.
class ImageTransfer {
 public:
  explicit ImageTransfer(const preprocess::GpuPreprocessor& preprocessor);

  /// Adds to `copies` what a kernel over `images` images needs of those in host memory, and
  /// enqueues the rest of it; those that the batch lacks repeat its first. May move table(): what
  /// was captured with it must then be made anew.
  void send(const Batch& batch, std::uint32_t images, HostCopies& copies,
            const cuda::Stream& stream);

  /// Device address of the table; what the kernel is given.
  const std::byte* table() const { return table_.get(); }

 private:
  /// Whether each image has the size of the one in its place in the batch before.
  bool find_resamplings(const Batch& batch);
  void plan();
  void reserve_pixels(std::size_t bytes);
  void reserve_table(std::size_t bytes);
  void send_table(std::uint32_t images, const cuda::Stream& stream);
  void send_pixels(const Batch& batch, HostCopies& copies, const cuda::Stream& stream);

  const preprocess::GpuPreprocessor& preprocessor_;
  cuda::DeviceMemory pixels_, table_;
  cuda::PinnedMemory host_table_;
  std::size_t pixel_bytes_ = 0, table_bytes_ = 0;
  std::uint32_t images_ = 0;  // of the table that is there; 0: none
  std::vector<std::shared_ptr<const preprocess::Resampling>> resamplings_;
  std::vector<preprocess::BatchSource> sources_;
  std::vector<std::size_t> offsets_;  // of each image's window in pixels_
};

}  // namespace trtinfer::pipeline
