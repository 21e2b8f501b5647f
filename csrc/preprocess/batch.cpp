#include "preprocess/batch.hpp"

#include <algorithm>
#include <cstring>

namespace trtinfer::preprocess {

namespace {

static_assert(sizeof(Taps) == 2 * sizeof(std::int32_t));

int padded_column_taps(const Coefficients& columns) {
  int taps = 0;
  for (const Taps& t : columns.taps) taps = std::max(taps, t.count);
  return (taps + 3) / 4 * 4;
}

std::size_t weight_words(const Resampling& resampling) {
  const Coefficients& columns = resampling.columns;
  return resampling.rows.taps.size() * 2 + resampling.rows.weights.size() +
         columns.taps.size() * (2 + static_cast<std::size_t>(padded_column_taps(columns)));
}

// Appends to the int32s behind the images.
class Writer {
 public:
  Writer(void* batch, std::size_t start) : words_(static_cast<std::int32_t*>(batch)), at_(start) {}

  std::int32_t taps(const Coefficients& coefficients) {
    std::memcpy(words_ + at_, coefficients.taps.data(), coefficients.taps.size() * sizeof(Taps));
    return advance(coefficients.taps.size() * 2);
  }

  std::int32_t weights(const Coefficients& coefficients) {
    std::ranges::copy(coefficients.weights, words_ + at_);
    return advance(coefficients.weights.size());
  }

  std::int32_t weights_by_tap(const Coefficients& coefficients, int taps) {
    std::int32_t* out = words_ + at_;
    for (int t = 0; t < taps; ++t) {
      for (int i = 0; i < coefficients.size(); ++i) {
        const bool used = t < coefficients.taps[i].count;
        *out++ = used ? coefficients.weights[std::size_t(i) * coefficients.stride + t] : 0;
      }
    }
    return advance(static_cast<std::size_t>(taps) * coefficients.size());
  }

 private:
  std::int32_t advance(std::size_t words) {
    const std::size_t before = at_;
    at_ += words;
    return static_cast<std::int32_t>(before);
  }

  std::int32_t* words_;
  std::size_t at_;
};

// The first image of the same source size, whose weights serve the later ones too.
std::size_t first_alike(std::span<const BatchSource> sources, std::size_t image) {
  std::size_t first = 0;
  while (sources[first].resampling != sources[image].resampling) ++first;
  return first;
}

}  // namespace

std::size_t batch_bytes(std::span<const BatchSource> sources) {
  std::size_t words = 0;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (first_alike(sources, i) == i) words += weight_words(*sources[i].resampling);
  }
  return sources.size() * sizeof(BatchImage) + words * sizeof(std::int32_t);
}

void write_batch(std::span<const BatchSource> sources, void* batch) {
  auto* images = static_cast<BatchImage*>(batch);
  Writer writer(batch, sources.size() * sizeof(BatchImage) / sizeof(std::int32_t));
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const BatchSource& source = sources[i];
    if (const std::size_t first = first_alike(sources, i); first < i) {
      images[i] = images[first];
      images[i].source = source.data;
      images[i].source_stride = source.row_stride;
      continue;
    }
    const Resampling& resampling = *source.resampling;
    const Geometry& geometry = resampling.geometry;
    const int column_taps = padded_column_taps(resampling.columns);
    images[i] = {.source = source.data,
                 .source_stride = source.row_stride,
                 .source_height = static_cast<std::int32_t>(geometry.source_height),
                 .rows = geometry.rows,
                 .columns = geometry.columns,
                 .top = geometry.top,
                 .left = geometry.left,
                 .vertical_first = geometry.vertical_first,
                 .row_stride = resampling.rows.stride,
                 .column_taps = column_taps,
                 .row_taps_at = writer.taps(resampling.rows),
                 .row_weights_at = writer.weights(resampling.rows),
                 .column_taps_at = writer.taps(resampling.columns),
                 .column_weights_at = writer.weights_by_tap(resampling.columns, column_taps)};
  }
}

}  // namespace trtinfer::preprocess
