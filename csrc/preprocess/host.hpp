// Preprocessing on the CPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "preprocess/recipe.hpp"

namespace trtinfer::preprocess {

// A borrowed RGB image: height x width x 3 bytes, rows row_stride bytes apart.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int height = 0, width = 0;
  std::ptrdiff_t row_stride = 0;
};

// Runs one recipe on images of any size. Thread-safe; allocates only for a size that is not
// among the last few, and for threads when threads > 1.
class HostPreprocessor {
 public:
  // threads: upper limit for one image; small images use fewer. Throws std::invalid_argument.
  explicit HostPreprocessor(const Recipe& recipe, int threads = 1);
  ~HostPreprocessor();
  HostPreprocessor(HostPreprocessor&&) noexcept;
  HostPreprocessor& operator=(HostPreprocessor&&) noexcept;

  const Recipe& recipe() const noexcept;

  // Channels, height, width of the output for a source of that size.
  std::array<std::int64_t, 3> output_shape(std::int64_t height, std::int64_t width) const;
  std::size_t output_bytes(std::int64_t height, std::int64_t width) const;

  // Writes output_bytes(image.height, image.width) bytes, C-contiguous, to dst, which is aligned
  // for the recipe's dtype. Throws std::invalid_argument for an image that has no pixels.
  void run(const ImageView& image, void* dst) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trtinfer::preprocess
