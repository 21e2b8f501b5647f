// The GPU's tiles run on the CPU, phase by phase and thread by thread, against the CPU's own code.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.hpp"
#include "preprocess/batch.hpp"
#include "preprocess/host.hpp"
#include "preprocess/table.hpp"
#include "preprocess/tile.hpp"

using namespace trtinfer::preprocess;

namespace {

std::mt19937 random_engine{2};

int random_int(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random_engine);
}

// Pixels in whole blocks of 16 bytes, as the kernel asks for, at any place within them.
struct Image {
  int height, width, offset;
  std::vector<std::uint64_t> memory;

  Image(int h, int w)
      : height(h), width(w), offset(random_int(0, 15)), memory(std::size_t(h) * w * 3 / 8 + 6) {
    for (std::uint64_t& word : memory)
      word = (std::uint64_t{random_engine()} << 32) + random_engine();
  }
  const std::uint8_t* data() const {
    const auto start = reinterpret_cast<std::uintptr_t>(memory.data());
    return reinterpret_cast<const std::uint8_t*>((start + 15) / 16 * 16) + offset;
  }
  std::ptrdiff_t stride() const { return std::ptrdiff_t{3} * width; }
};

// What a block of threads does; poisons shared memory first.
template <class Arithmetic, int kRows>
void run_block(const void* batch, const BatchOutput& output, int image, int row, int column) {
  using Tile = Tile<Arithmetic, kRows>;
  const auto shared = std::make_unique<typename Tile::Shared>();
  std::memset(static_cast<void*>(shared.get()), 0xa5, sizeof(typename Tile::Shared));
  std::vector<typename Tile::Sums> sums(kTileThreads);
  const Tile tile(batch, image, row, column);
  for (auto& s : sums) tile.start(s);
  for (int i = 0; i < tile.chunks(); ++i) {
    const Chunk chunk = tile.chunk(i);
    for (int t = 0; t < kTileThreads; ++t) tile.load(chunk, t, *shared);
    for (int t = 0; t < kTileThreads; ++t) tile.first_pass(chunk, t, *shared);
    for (int t = 0; t < kTileThreads; ++t) tile.second_pass(chunk, t, *shared, sums[t]);
  }
  for (int t = 0; t < kTileThreads; ++t) tile.write(output, image, t, sums[t]);
}

template <class Arithmetic, int kRows>
void run_grid(const void* batch, const BatchOutput& output, int images) {
  for (int image = 0; image < images; ++image)
    for (int row = 0; row < output.height; row += kRows)
      for (int column = 0; column < output.width; column += kTileColumns)
        run_block<Arithmetic, kRows>(batch, output, image, row, column);
}

// Both tile heights give what HostPreprocessor gives, for a batch of these images.
void check_batch(const Recipe& recipe, const std::vector<Image>& images) {
  std::vector<std::unique_ptr<Resampling>> resamplings;
  std::vector<BatchSource> sources;
  for (const Image& image : images) {
    resamplings.push_back(std::make_unique<Resampling>(recipe, image.height, image.width));
    sources.push_back({resamplings.back().get(), image.data(), image.stride()});
  }
  std::vector<std::uint64_t> batch(batch_bytes(sources) / 8 + 1);
  write_batch(sources, batch.data());

  const HostPreprocessor host(recipe, 1);
  const std::size_t bytes = host.output_bytes(images[0].height, images[0].width);
  const auto [channels, height, width] = host.output_shape(images[0].height, images[0].width);
  std::vector<std::uint8_t> expected(bytes * images.size()), got(expected.size());
  for (std::size_t i = 0; i < images.size(); ++i) {
    const Image& image = images[i];
    host.run({image.data(), image.height, image.width, image.stride()}, &expected[i * bytes]);
  }
  const NormalizationTable table = make_table(recipe);
  const bool half = recipe.dtype == Dtype::kFloat16;
  const BatchOutput output{.data = got.data(),
                           .table = half ? static_cast<const void*>(table.float16.data())
                                         : static_cast<const void*>(table.float32.data()),
                           .height = static_cast<std::int32_t>(height),
                           .width = static_cast<std::int32_t>(width),
                           .pad_value = recipe.pad_value,
                           .bgr = recipe.channel_order == ChannelOrder::kBgr,
                           .half = half};
  const int count = static_cast<int>(images.size());
  for (const int rows : {8, 16}) {
    std::fill(got.begin(), got.end(), std::uint8_t{0xee});
    if (recipe.filter == Filter::kOpencvLinear) {
      rows == 8 ? run_grid<OpencvArithmetic, 8>(batch.data(), output, count)
                : run_grid<OpencvArithmetic, 16>(batch.data(), output, count);
    } else {
      rows == 8 ? run_grid<PillowArithmetic, 8>(batch.data(), output, count)
                : run_grid<PillowArithmetic, 16>(batch.data(), output, count);
    }
    CHECK(got == expected);
  }
}

Recipe recipe_of(Resize resize, Filter filter, int side, int crop) {
  Recipe recipe;
  recipe.resize = resize;
  recipe.resize_height = recipe.resize_width = side;
  recipe.filter = filter;
  recipe.crop_height = recipe.crop_width = crop;
  recipe.mean = {0.1F, 0.2F, 0.3F};
  recipe.std = {0.5F, 0.25F, 2.0F};
  return recipe;
}

Image random_image(int largest) {
  const auto side = [&] {
    return static_cast<int>(std::exp(random_int(0, 100) / 100.0 * std::log(largest)));
  };
  return {side(), side()};
}

void mixed_batches_equal_the_cpu() {
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic, Filter::kOpencvLinear}) {
    for (int i = 0; i < 12; ++i) {
      Recipe recipe = recipe_of(Resize::kShortSide, filter, random_int(8, 80), random_int(8, 80));
      recipe.dtype = i % 2 ? Dtype::kFloat16 : Dtype::kFloat32;
      recipe.channel_order = i % 3 ? ChannelOrder::kRgb : ChannelOrder::kBgr;
      recipe.pass_order = i % 4 ? PassOrder::kPillow13 : PassOrder::kHorizontalFirst;
      std::vector<Image> images;
      for (int j = 0; j < 5; ++j) images.push_back(random_image(400));
      images.push_back({1, random_int(1, 300)});
      images.push_back({random_int(1, 300), 1});
      check_batch(recipe, images);
    }
  }
}

void letterboxes_equal_the_cpu() {
  for (int i = 0; i < 8; ++i) {
    Recipe recipe = recipe_of(Resize::kLetterbox, Filter::kOpencvLinear, random_int(20, 120), 0);
    recipe.resize_width = random_int(20, 120);
    recipe.pad_value = 114;
    std::vector<Image> images;
    for (int j = 0; j < 4; ++j) images.push_back(random_image(300));
    check_batch(recipe, images);
  }
}

void windows_wider_than_shared_memory_equal_the_cpu() {
  std::vector<Image> wide, tall;
  wide.push_back({3, 20000});
  tall.push_back({20000, 3});
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic, Filter::kOpencvLinear}) {
    check_batch(recipe_of(Resize::kExact, filter, 20, 0), wide);
    check_batch(recipe_of(Resize::kExact, filter, 20, 0), tall);
  }
}

void full_size_photos_equal_the_cpu() {
  std::vector<Image> images;
  images.push_back({1080, 1920});
  images.push_back({1920, 700});
  check_batch(recipe_of(Resize::kShortSide, Filter::kBilinear, 256, 224), images);
}

}  // namespace

int main() {
  mixed_batches_equal_the_cpu();
  letterboxes_equal_the_cpu();
  windows_wider_than_shared_memory_equal_the_cpu();
  full_size_photos_equal_the_cpu();
}
