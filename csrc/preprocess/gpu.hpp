// Preprocessing on the GPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "preprocess/host.hpp"
#include "preprocess/recipe.hpp"
#include "preprocess/resampling.hpp"

namespace trtinfer::preprocess {

// Microseconds of one batch.
struct GpuTiming {
  double kernel;         // between two events on the GPU
  double launch;         // from the launch to its end, seen by the CPU
  double with_transfer;  // with the copies from and to pinned memory, seen by the CPU
};

// Runs one recipe, whose outputs all have one shape, on batches of images of any sizes, one kernel
// launch a batch. Bound to the device that was current when it was made. Thread-safe.
class GpuPreprocessor {
 public:
  // Throws std::invalid_argument for a recipe that is wrong or whose output shape varies,
  // std::runtime_error ("no GPU: ...") on a machine without a GPU, and cuda::Error.
  explicit GpuPreprocessor(const Recipe& recipe);
  ~GpuPreprocessor();
  GpuPreprocessor(GpuPreprocessor&&) noexcept;
  GpuPreprocessor& operator=(GpuPreprocessor&&) noexcept;

  const Recipe& recipe() const noexcept;

  // Channels, height, width of every output, and its bytes.
  std::array<std::int64_t, 3> output_shape() const noexcept;
  std::size_t output_bytes() const noexcept;

  // For write_batch; throws std::invalid_argument for a source without pixels.
  std::shared_ptr<const Resampling> resampling(std::int64_t height, std::int64_t width) const;

  // Enqueues one kernel on a cudaStream_t for the bytes of write_batch; see BatchLaunch.
  void launch(const void* batch, int images, void* output, void* stream) const;

  // Copies the images' windows to the GPU, launches once and copies the outputs back.
  void run(std::span<const ImageView> images, void* output) const;
  std::vector<GpuTiming> time(std::span<const ImageView> images, int repeats) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trtinfer::preprocess
