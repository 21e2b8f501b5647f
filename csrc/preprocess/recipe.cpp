#include "preprocess/recipe.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace trtinfer::preprocess {

namespace {

constexpr std::int64_t kLargestSide = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kLargestOutput = 1 << 16;

struct Size {
  std::int64_t height, width;
};

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

// The ratio that fits a source into the letterbox.
Size letterbox_size(const Recipe& recipe, Size source) {
  const double ratio = std::min(static_cast<double>(recipe.resize_height) / source.height,
                                static_cast<double>(recipe.resize_width) / source.width);
  const auto scaled = [ratio](std::int64_t side) {
    return std::max<std::int64_t>(std::llrint(std::nearbyint(side * ratio)), 1);
  };
  return {scaled(source.height), scaled(source.width)};
}

// The long side is cut off to an integer, as torchvision does.
Size short_side_size(std::int64_t side, Size source) {
  const auto [low, high] = std::minmax(source.height, source.width);
  const auto longer =
      static_cast<std::int64_t>(static_cast<double>(side * high) / static_cast<double>(low));
  return source.height <= source.width ? Size{side, longer} : Size{longer, side};
}

Size resized_size(const Recipe& recipe, Size source) {
  switch (recipe.resize) {
    case Resize::kNone:
      return source;
    case Resize::kShortSide:
      return short_side_size(recipe.resize_height, source);
    case Resize::kExact:
      return {recipe.resize_height, recipe.resize_width};
    case Resize::kLetterbox:
      return letterbox_size(recipe, source);
  }
  throw std::invalid_argument("unknown resize mode");
}

// One axis of a Geometry.
struct Placement {
  std::int64_t first = 0;  // of the resized image
  int shown = 0;
  int offset = 0;  // in the output
  int output = 0;
};

Placement whole(std::int64_t resized) {
  require(resized <= kLargestOutput,
          "the output would be " + std::to_string(resized) + " pixels long, the limit is " +
              std::to_string(kLargestOutput) + ": crop it or resize to a smaller size");
  return {0, static_cast<int>(resized), 0, static_cast<int>(resized)};
}

// torchvision's center_crop: the offset is rounded half to even; a smaller image is padded, the
// odd pixel after it.
Placement center_crop(std::int64_t resized, int crop) {
  if (crop >= resized) {
    return {0, static_cast<int>(resized), static_cast<int>((crop - resized) / 2), crop};
  }
  const double middle = static_cast<double>(resized - crop) / 2.0;
  return {std::llrint(std::nearbyint(middle)), crop, 0, crop};
}

// ultralytics' LetterBox: the odd pixel of padding goes after the image.
Placement letterbox(std::int64_t resized, int side) {
  const double padding = static_cast<double>(side - resized) / 2.0;
  const int offset = static_cast<int>(std::nearbyint(padding - 0.1));
  return {0, static_cast<int>(resized), offset, side};
}

Placement place(const Recipe& recipe, std::int64_t resized, int side, int crop) {
  if (recipe.resize == Resize::kLetterbox) return letterbox(resized, side);
  return crop > 0 ? center_crop(resized, crop) : whole(resized);
}

// Pillow 13 resizes tall images vertically first.
bool is_vertical_first(const Recipe& recipe, Size source, Size resized) {
  if (recipe.filter == Filter::kOpencvLinear) return false;
  if (recipe.pass_order == PassOrder::kHorizontalFirst) return false;
  const std::int64_t shrink = source.height - resized.height;
  return shrink > 0 && shrink > 2 * (source.width - resized.width);
}

}  // namespace

void Recipe::validate() const {
  const bool one_side = resize == Resize::kShortSide;
  const bool two_sides = resize == Resize::kExact || resize == Resize::kLetterbox;
  const auto is_side = [](int side) { return side >= 1 && side <= kLargestOutput; };
  require(!(one_side || two_sides) || is_side(resize_height), "resize height must be 1 to 65536");
  require(!two_sides || is_side(resize_width), "resize width must be 1 to 65536");
  require((crop_height == 0) == (crop_width == 0), "crop height and width go together");
  require(crop_height == 0 || (is_side(crop_height) && is_side(crop_width)),
          "crop must be 1 to 65536 a side");
  require(crop_height == 0 || resize != Resize::kLetterbox, "a letterbox has no crop");
  require(std::isfinite(scale) && scale > 0.0F, "scale must be positive");
  for (const float m : mean) require(std::isfinite(m), "mean must be finite");
  for (const float s : std) require(std::isfinite(s) && s > 0.0F, "std must be positive");
}

Geometry make_geometry(const Recipe& recipe, std::int64_t height, std::int64_t width) {
  require(height >= 1 && width >= 1 && height <= kLargestSide && width <= kLargestSide,
          "an image of " + std::to_string(height) + " x " + std::to_string(width) +
              " pixels cannot be resized");
  const Size source{height, width};
  const Size resized = resized_size(recipe, source);
  const Placement rows = place(recipe, resized.height, recipe.resize_height, recipe.crop_height);
  const Placement columns = place(recipe, resized.width, recipe.resize_width, recipe.crop_width);
  return {.source_height = height,
          .source_width = width,
          .resized_height = resized.height,
          .resized_width = resized.width,
          .first_row = rows.first,
          .first_column = columns.first,
          .rows = rows.shown,
          .columns = columns.shown,
          .top = rows.offset,
          .left = columns.offset,
          .output_height = rows.output,
          .output_width = columns.output,
          .vertical_first = is_vertical_first(recipe, source, resized)};
}

}  // namespace trtinfer::preprocess
