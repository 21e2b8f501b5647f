// The CPU's resampling against the definition: whole image, no crop, no threads, no SIMD.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "preprocess/host.hpp"
#include "preprocess/rows.hpp"
#include "preprocess/table.hpp"

using namespace trtinfer::preprocess;

namespace {

std::mt19937 random_engine{1};

int random_int(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random_engine);
}

// Sides from 1 to 400, small ones as often as large ones.
int random_side() { return static_cast<int>(std::exp(random_int(0, 600) / 100.0)); }

// An image whose last row ends where its allocation ends, so that a sanitizer sees a read past it.
struct Image {
  int height, width;
  std::ptrdiff_t stride;
  std::size_t bytes;
  std::unique_ptr<std::uint8_t[]> data;

  Image(int h, int w, int gap)
      : height(h),
        width(w),
        stride(w * 3 + gap),
        bytes(static_cast<std::size_t>(stride * (h - 1) + w * 3)),
        data(new std::uint8_t[bytes]) {
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::uint8_t>(random_engine());
  }

  ImageView view() const { return {data.get(), height, width, stride}; }
  const std::uint8_t* pixel(std::int64_t y, std::int64_t x) const {
    return data.get() + y * stride + x * 3;
  }
};

double weight_of(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::kBilinear) return std::max(0.0, 1.0 - x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0.0;
}

// One pass of Pillow's resampling of n values that lie `step` apart.
std::vector<std::uint8_t> resample_line(Filter filter, const std::vector<std::uint8_t>& line,
                                        int target) {
  const int source = static_cast<int>(line.size());
  const double scale = static_cast<double>(source) / target, stretch = std::max(scale, 1.0);
  const double support = (filter == Filter::kBicubic ? 2.0 : 1.0) * stretch;
  std::vector<std::uint8_t> result(target);
  for (int i = 0; i < target; ++i) {
    const double center = (i + 0.5) * scale;
    const int begin = std::max(0, static_cast<int>(center - support + 0.5));
    const int end = std::min(source, static_cast<int>(center + support + 0.5));
    std::vector<double> weights;
    double total = 0;
    for (int j = begin; j < end; ++j) {
      weights.push_back(weight_of(filter, (j - center + 0.5) * (1.0 / stretch)));
      total += weights.back();
    }
    std::int64_t sum = 1 << 21;
    for (int j = begin; j < end; ++j) {
      const double weight = weights[j - begin] / total;
      const auto fixed = static_cast<std::int64_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << 22));
      sum += fixed * line[j];
    }
    result[i] = static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> 22, 0, 255));
  }
  return result;
}

// height x width x 3 bytes.
struct Pixels {
  int height, width;
  std::vector<std::uint8_t> bytes;

  Pixels(int h, int w) : height(h), width(w), bytes(std::size_t(h) * w * 3) {}
  std::uint8_t& at(int y, int x, int c) { return bytes[(std::size_t(y) * width + x) * 3 + c]; }
};

Pixels resample_columns_of(Filter filter, Pixels image, int target) {
  Pixels result(image.height, target);
  for (int y = 0; y < image.height; ++y) {
    for (int c = 0; c < 3; ++c) {
      std::vector<std::uint8_t> line;
      for (int x = 0; x < image.width; ++x) line.push_back(image.at(y, x, c));
      const auto resampled = resample_line(filter, line, target);
      for (int x = 0; x < target; ++x) result.at(y, x, c) = resampled[x];
    }
  }
  return result;
}

Pixels resample_rows_of(Filter filter, Pixels image, int target) {
  Pixels result(target, image.width);
  for (int x = 0; x < image.width; ++x) {
    for (int c = 0; c < 3; ++c) {
      std::vector<std::uint8_t> line;
      for (int y = 0; y < image.height; ++y) line.push_back(image.at(y, x, c));
      const auto resampled = resample_line(filter, line, target);
      for (int y = 0; y < target; ++y) result.at(y, x, c) = resampled[y];
    }
  }
  return result;
}

Pixels resize(Filter filter, const Image& image, int height, int width, bool vertical_first) {
  Pixels pixels(image.height, image.width);
  for (int y = 0; y < image.height; ++y)
    std::memcpy(&pixels.at(y, 0, 0), image.pixel(y, 0), std::size_t(image.width) * 3);
  if (vertical_first)
    return resample_columns_of(filter, resample_rows_of(filter, pixels, height), width);
  return resample_rows_of(filter, resample_columns_of(filter, pixels, width), height);
}

std::vector<float> run(const Recipe& recipe, const Image& image, int threads) {
  const HostPreprocessor preprocessor(recipe, threads);
  const std::size_t bytes = preprocessor.output_bytes(image.height, image.width);
  std::vector<float> output(bytes / sizeof(float), -1.0F);
  preprocessor.run(image.view(), output.data());
  return output;
}

Recipe exact(Filter filter, int height, int width) {
  Recipe recipe;
  recipe.resize = Resize::kExact;
  recipe.resize_height = height;
  recipe.resize_width = width;
  recipe.filter = filter;
  recipe.scale = 1.0F;
  return recipe;
}

// The planes of `out` hold the pixels of `expected` from (top, left) on.
bool equals(const std::vector<float>& out, Pixels& expected, int top, int left, int height,
            int width) {
  for (int c = 0; c < 3; ++c)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        if (out[(std::size_t(c) * height + y) * width + x] != expected.at(top + y, left + x, c))
          return false;
  return true;
}

void resizes_as_defined_at_every_size() {
  for (int i = 0; i < 60; ++i) {
    const Image image(i % 7 == 0 ? 1 : random_side(), i % 11 == 0 ? 1 : random_side(), i % 5);
    const int height = random_side() / 2 + 1, width = random_side() / 2 + 1;
    Recipe recipe = exact(i % 2 ? Filter::kBicubic : Filter::kBilinear, height, width);
    for (const PassOrder order : {PassOrder::kHorizontalFirst, PassOrder::kPillow13}) {
      recipe.pass_order = order;
      const int shrink = image.height - height;
      const bool vertical_first =
          order == PassOrder::kPillow13 && shrink > 0 && shrink > 2 * (image.width - width);
      Pixels expected = resize(recipe.filter, image, height, width, vertical_first);
      for (const bool simd : {true, false}) {
        allow_simd(simd);
        CHECK(equals(run(recipe, image, 1), expected, 0, 0, height, width));
        CHECK(equals(run(recipe, image, 3), expected, 0, 0, height, width));
      }
      allow_simd(true);
    }
  }
}

void crop_is_a_part_of_the_whole() {
  for (int i = 0; i < 20; ++i) {
    const Image image(random_int(20, 300), random_int(20, 300), 0);
    Recipe recipe = exact(Filter::kBicubic, random_int(10, 60), random_int(10, 60));
    Pixels whole = resize(recipe.filter, image, recipe.resize_height, recipe.resize_width,
                          make_geometry(recipe, image.height, image.width).vertical_first);
    recipe.crop_height = random_int(1, recipe.resize_height);
    recipe.crop_width = random_int(1, recipe.resize_width);
    const Geometry g = make_geometry(recipe, image.height, image.width);
    CHECK(equals(run(recipe, image, 1), whole, static_cast<int>(g.first_row),
                 static_cast<int>(g.first_column), recipe.crop_height, recipe.crop_width));
  }
}

void large_images_are_the_same_on_threads() {
  const Image image(900, 1100, 0);
  Recipe recipe = exact(Filter::kBilinear, 211, 223);
  const std::vector<float> alone = run(recipe, image, 1);
  for (const int threads : {2, 3, 8}) CHECK(run(recipe, image, threads) == alone);
}

void one_preprocessor_serves_many_threads_and_sizes() {
  const Recipe recipe = exact(Filter::kBilinear, 16, 16);
  const HostPreprocessor shared(recipe, 1);
  std::vector<Image> images;
  for (int i = 0; i < 75; ++i) images.emplace_back(10 + i, 90 - i, 0);  // more than the cache holds
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const Image& image = images[static_cast<std::size_t>(t * 31 + i * 7) % images.size()];
        std::vector<float> output(3 * 16 * 16);
        shared.run(image.view(), output.data());
        const HostPreprocessor own(recipe, 1);
        std::vector<float> expected(output.size());
        own.run(image.view(), expected.data());
        CHECK(output == expected);
      }
    });
  }
}

void refuses_what_has_no_pixels() {
  const HostPreprocessor preprocessor(exact(Filter::kBilinear, 4, 4), 1);
  float output[48];
  CHECK_THROWS((preprocessor.run({nullptr, 0, 5, 15}, output), 0), std::invalid_argument);
  CHECK_THROWS(preprocessor.output_shape(5, 0), std::invalid_argument);
  CHECK_THROWS(HostPreprocessor(exact(Filter::kBilinear, 0, 4), 1), std::invalid_argument);
  CHECK_THROWS(HostPreprocessor(exact(Filter::kBilinear, 4, 4), 0), std::invalid_argument);
}

void halves_round_to_nearest_even() {
  CHECK(to_half(1.0F) == 0x3c00);
  CHECK(to_half(-2.0F) == 0xc000);
  CHECK(to_half(0.0F) == 0 && to_half(-0.0F) == 0x8000);
  CHECK(to_half(65504.0F) == 0x7bff && to_half(65519.9F) == 0x7bff);
  CHECK(to_half(65520.0F) == 0x7c00 && to_half(INFINITY) == 0x7c00);
  CHECK(to_half(1.0F + 0x1p-11F) == 0x3c00 && to_half(1.0F + 3 * 0x1p-11F) == 0x3c02);
  CHECK(to_half(0x1p-24F) == 1 && to_half(0x1p-25F) == 0 && to_half(1.5F * 0x1p-25F) == 1);
  CHECK(to_half(0x1p-14F) == 0x0400 && to_half(0x1p-14F - 0x1p-26F) == 0x0400);
  CHECK((to_half(NAN) & 0x7fff) > 0x7c00);
}

}  // namespace

int main() {
  resizes_as_defined_at_every_size();
  crop_is_a_part_of_the_whole();
  large_images_are_the_same_on_threads();
  one_preprocessor_serves_many_threads_and_sizes();
  refuses_what_has_no_pixels();
  halves_round_to_nearest_even();
}
