#include "preprocess/host.hpp"

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "preprocess/resampling.hpp"
#include "preprocess/rows.hpp"
#include "preprocess/table.hpp"

namespace trtinfer::preprocess {

namespace {

// Fewer pixels than this are not worth the start of a thread (about 30 us).
constexpr std::int64_t kPixelsPerThread = 150'000;

// Buffers of one thread; they grow to the largest image and stay.
struct Scratch {
  std::vector<std::int16_t> middle;
  std::vector<const void*> pointers;
  std::vector<std::uint8_t> pixels;

  template <class Value>
  Value* middle_rows(std::size_t count) {
    const std::size_t words = (count * sizeof(Value) + 1) / 2;
    if (middle.size() < words) middle.resize(words);
    return reinterpret_cast<Value*>(middle.data());
  }
  template <class Value>
  const Value** row_pointers(std::size_t count) {
    if (pointers.size() < count) pointers.resize(count);
    return reinterpret_cast<const Value**>(pointers.data());
  }
  std::uint8_t* pixel_rows(std::size_t bytes) {
    if (pixels.size() < bytes) pixels.resize(bytes);
    return pixels.data();
  }
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// A band of output rows of one image, from pixels to normalized planes.
template <class Arithmetic, class Element>
class Band {
 public:
  Band(const Resampling& resampling, const ImageView& image, ChannelOrder order,
       const Element* table, Element* output)
      : resampling_(resampling),
        geometry_(resampling.geometry),
        image_(image),
        order_(order),
        table_(table),
        output_(output) {}

  void run(int begin, int end) {
    if (begin == end) return;
    if constexpr (std::is_same_v<Arithmetic, PillowArithmetic>) {
      if (geometry_.vertical_first) return run_vertical_first(begin, end);
    }
    run_horizontal_first(begin, end);
  }

 private:
  using Middle = typename Arithmetic::Middle;

  const std::uint8_t* source_row(std::int64_t row) const {
    return image_.data + std::clamp<std::int64_t>(row, 0, image_.height - 1) * image_.row_stride;
  }

  const std::int32_t* row_weights(int y) const {
    return &resampling_.rows.weights[static_cast<std::size_t>(y) * resampling_.rows.stride];
  }

  // Middle rows live in a ring that is just long enough for one output row and the next pair.
  void run_horizontal_first(int begin, int end) {
    const Coefficients& rows = resampling_.rows;
    const int width = geometry_.columns * 3;
    const int ring = rows.stride + 2;
    const std::size_t stride = static_cast<std::size_t>(width) + kRowSlack;
    Scratch& scratch = thread_scratch();
    Middle* middle = scratch.middle_rows<Middle>(ring * stride);
    const Middle** window = scratch.row_pointers<Middle>(rows.stride);
    std::uint8_t* pixels = scratch.pixel_rows(width);

    const std::int32_t base = rows.taps[begin].first;
    const auto slot = [&](std::int32_t row) { return middle + (row - base) % ring * stride; };
    std::int32_t next = base;
    for (int y = begin; y < end; ++y) {
      const Taps taps = rows.taps[y];
      next = std::max(next, taps.first);
      for (; next < taps.first + taps.count; next += 2) {
        resample_columns<Arithmetic>(resampling_, {source_row(next), source_row(next + 1)},
                                     {slot(next), slot(next + 1)});
      }
      for (int t = 0; t < taps.count; ++t) window[t] = slot(taps.first + t);
      resample_rows<Arithmetic>(row_weights(y), window, taps.count, width, pixels);
      write(y, pixels);
    }
  }

  void run_vertical_first(int begin, int end) {
    const Coefficients& rows = resampling_.rows;
    const std::int32_t first_column = resampling_.columns.source_begin();
    const int window_bytes = (resampling_.columns.source_end() - first_column) * 3;
    const std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(first_column) * 3;
    const int width = geometry_.columns * 3 + kRowSlack;
    Scratch& scratch = thread_scratch();
    std::uint8_t* middle = scratch.middle_rows<std::uint8_t>(std::size_t{2} * window_bytes);
    const std::uint8_t** window = scratch.row_pointers<std::uint8_t>(rows.stride);
    std::uint8_t* pixels = scratch.pixel_rows(std::size_t{2} * width);

    for (int y = begin; y < end; y += 2) {
      const int pair = std::min(2, end - y);
      for (int i = 0; i < pair; ++i) {
        const Taps taps = rows.taps[y + i];
        for (int t = 0; t < taps.count; ++t) window[t] = source_row(taps.first + t) + offset;
        resample_rows<PillowArithmetic>(row_weights(y + i), window, taps.count, window_bytes,
                                        middle + i * std::ptrdiff_t{window_bytes});
      }
      const std::uint8_t* first = middle - offset;
      resample_columns<PillowArithmetic>(resampling_, {first, first + (pair - 1) * window_bytes},
                                         {pixels, pixels + (pair - 1) * width});
      for (int i = 0; i < pair; ++i) write(y + i, pixels + i * width);
    }
  }

  void write(int y, const std::uint8_t* pixels) const {
    const std::int64_t plane = std::int64_t{geometry_.output_height} * geometry_.output_width;
    Element* row = output_ + (std::int64_t{geometry_.top} + y) * geometry_.output_width;
    row += geometry_.left;
    write_planes<Element>(pixels, geometry_.columns, table_, order_,
                          {row, row + plane, row + 2 * plane});
  }

  const Resampling& resampling_;
  const Geometry& geometry_;
  const ImageView& image_;
  const ChannelOrder order_;
  const Element* table_;
  Element* output_;
};

// Fills what the resized image does not cover.
template <class Element>
void fill_padding(const Geometry& g, const Element* table, std::uint8_t value, Element* output) {
  const int bottom = g.top + g.rows, right = g.left + g.columns;
  for (int c = 0; c < kChannels; ++c) {
    const Element pad = table[c * 256 + value];
    for (int y = 0; y < g.output_height; ++y, output += g.output_width) {
      const bool covered = y >= g.top && y < bottom;
      std::fill(output, output + (covered ? g.left : g.output_width), pad);
      if (covered) std::fill(output + right, output + g.output_width, pad);
    }
  }
}

// Calls work(begin, end) for bands of the rows, one a thread, and rethrows what one of them threw.
template <class Work>
void run_bands(int rows, int bands, const Work& work) {
  std::vector<std::exception_ptr> errors(bands);
  const auto run = [&](int i) {
    const auto edge = [=](int e) { return static_cast<int>(std::int64_t{rows} * e / bands); };
    try {
      work(edge(i), edge(i + 1));
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(bands - 1);
    for (int i = 1; i < bands; ++i) {
      try {
        threads.emplace_back(run, i);
      } catch (const std::system_error&) {  // no more threads for this process
        run(i);
      }
    }
    run(0);
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace

struct HostPreprocessor::State {
  State(const Recipe& r, int t) : recipe(r), threads(t), table(make_table(r)), cache(r) {}

  // Bands that pay for an image; the work grows with the source window and with the output.
  int bands(const Resampling& resampling) const {
    if (threads == 1) return 1;
    const Geometry& g = resampling.geometry;
    const SourceWindow window = resampling.source_window();
    const std::int64_t pixels =
        std::int64_t{window.rows} * window.columns + std::int64_t{g.rows} * g.columns;
    return static_cast<int>(
        std::clamp<std::int64_t>(pixels / kPixelsPerThread, 1, std::min(threads, g.rows)));
  }

  template <class Arithmetic, class Element>
  void run(const Resampling& resampling, const ImageView& image, const Element* values,
           Element* output) const {
    fill_padding(resampling.geometry, values, recipe.pad_value, output);
    const auto work = [&](int begin, int end) {
      Band<Arithmetic, Element>(resampling, image, recipe.channel_order, values, output)
          .run(begin, end);
    };
    const int count = bands(resampling);
    if (count == 1) return work(0, resampling.geometry.rows);
    run_bands(resampling.geometry.rows, count, work);
  }

  template <class Element>
  void run(const Resampling& resampling, const ImageView& image, const Element* values,
           void* output) const {
    auto* elements = static_cast<Element*>(output);
    if (recipe.filter == Filter::kOpencvLinear)
      return run<OpencvArithmetic>(resampling, image, values, elements);
    run<PillowArithmetic>(resampling, image, values, elements);
  }

  const Recipe recipe;
  const int threads;
  const NormalizationTable table;
  ResamplingCache cache;
};

HostPreprocessor::HostPreprocessor(const Recipe& recipe, int threads) {
  recipe.validate();
  if (threads < 1) {
    throw std::invalid_argument("threads must be at least 1, got " + std::to_string(threads));
  }
  state_ = std::make_unique<State>(recipe, threads);
}

HostPreprocessor::~HostPreprocessor() = default;
HostPreprocessor::HostPreprocessor(HostPreprocessor&&) noexcept = default;
HostPreprocessor& HostPreprocessor::operator=(HostPreprocessor&&) noexcept = default;

const Recipe& HostPreprocessor::recipe() const noexcept { return state_->recipe; }

std::array<std::int64_t, 3> HostPreprocessor::output_shape(std::int64_t height,
                                                           std::int64_t width) const {
  const Geometry geometry = make_geometry(state_->recipe, height, width);
  return {kChannels, geometry.output_height, geometry.output_width};
}

std::size_t HostPreprocessor::output_bytes(std::int64_t height, std::int64_t width) const {
  const auto [channels, rows, columns] = output_shape(height, width);
  return static_cast<std::size_t>(channels * rows * columns) * state_->recipe.element_bytes();
}

void HostPreprocessor::run(const ImageView& image, void* dst) const {
  const auto resampling = state_->cache.get(image.height, image.width);
  if (state_->recipe.dtype == Dtype::kFloat32) {
    state_->run<float>(*resampling, image, state_->table.float32.data(), dst);
  } else {
    state_->run<std::uint16_t>(*resampling, image, state_->table.float16.data(), dst);
  }
}

}  // namespace trtinfer::preprocess
