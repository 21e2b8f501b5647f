// What is done to an image before the network sees it, and the geometry that follows from it.
#pragma once

#include <array>
#include <cstdint>

namespace trtinfer::preprocess {

enum class Resize { kNone, kShortSide, kExact, kLetterbox };
enum class Filter { kBilinear, kBicubic, kOpencvLinear };
enum class PassOrder { kHorizontalFirst, kPillow13 };
enum class ChannelOrder { kRgb, kBgr };
enum class Dtype { kFloat32, kFloat16 };

// The parameters of preprocessing; a plain value. Images are RGB, uint8. mean and std belong to
// the output's channels in the output's order. Output = (pixel / scale - mean) / std.
struct Recipe {
  Resize resize = Resize::kNone;
  int resize_height = 0;  // kShortSide: the short side; kExact and kLetterbox: the height
  int resize_width = 0;   // kExact and kLetterbox only
  Filter filter = Filter::kBilinear;
  PassOrder pass_order = PassOrder::kPillow13;
  int crop_height = 0;  // 0: no crop
  int crop_width = 0;
  std::uint8_t pad_value = 0;  // of pixels outside the resized image, before normalization
  ChannelOrder channel_order = ChannelOrder::kRgb;
  float scale = 255.0F;
  std::array<float, 3> mean = {0.0F, 0.0F, 0.0F};
  std::array<float, 3> std = {1.0F, 1.0F, 1.0F};
  Dtype dtype = Dtype::kFloat32;

  // Throws std::invalid_argument when the parameters contradict each other.
  void validate() const;
  bool has_fixed_output() const noexcept { return resize >= Resize::kExact || crop_height > 0; }
  int element_bytes() const noexcept { return dtype == Dtype::kFloat32 ? 4 : 2; }

  bool operator==(const Recipe&) const = default;
};

// How one source size is resized and placed in its output. The window is the part of the
// resized image that the output shows: rows x columns from (first_row, first_column), at
// (top, left) of the output; the rest of the output is padding.
struct Geometry {
  std::int64_t source_height = 0, source_width = 0;
  std::int64_t resized_height = 0, resized_width = 0;
  std::int64_t first_row = 0, first_column = 0;
  int rows = 0, columns = 0;
  int top = 0, left = 0;
  int output_height = 0, output_width = 0;
  bool vertical_first = false;
};

// Throws std::invalid_argument for a source or an output without pixels or above 2^31 - 1 a side.
Geometry make_geometry(const Recipe& recipe, std::int64_t height, std::int64_t width);

}  // namespace trtinfer::preprocess
