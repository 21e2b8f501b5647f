#include "preprocess/resampling.hpp"

#include <algorithm>

namespace trtinfer::preprocess {

namespace {

constexpr int kLoadBytes = 16;

std::int32_t pack(std::int32_t first, std::int32_t second) {
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(second) << 16) |
                                   (static_cast<std::uint32_t>(first) & 0xffffU));
}

std::int32_t low_half(std::int32_t weight) { return static_cast<std::int16_t>(weight & 0xffff); }

std::int32_t high_half(std::int32_t weight) { return (weight - low_half(weight)) >> 16; }

// readable: columns that may be read in a row.
PairedWeights pair_weights(const Coefficients& columns, std::int64_t readable) {
  PairedWeights result;
  int taps = 0;
  for (const Taps& t : columns.taps) taps = std::max(taps, t.count);
  result.pairs = (taps + 1) / 2;
  result.halves.assign(static_cast<std::size_t>(columns.size()) * result.stride(), 0);
  const std::int64_t last_load = (result.stride() / 4 - 1) * 12 + kLoadBytes;
  for (int i = 0; i < columns.size(); ++i) {
    const std::int32_t* weights = &columns.weights[static_cast<std::size_t>(i) * columns.stride];
    const auto weight = [&](int t) { return t < columns.taps[i].count ? weights[t] : 0; };
    for (int pair = 0; pair < result.pairs; ++pair) {
      std::int32_t* out = &result.halves[static_cast<std::size_t>(i) * result.stride()];
      out += pair / 2 * 4 + pair % 2;
      const std::int32_t first = weight(2 * pair), second = weight(2 * pair + 1);
      out[0] = pack(low_half(first), low_half(second));
      out[2] = pack(high_half(first), high_half(second));
    }
    const bool fits = columns.taps[i].first * std::int64_t{3} + last_load <= readable * 3;
    if (fits && result.outputs == i) ++result.outputs;
  }
  return result;
}

}  // namespace

Resampling::Resampling(const Recipe& recipe, std::int64_t height, std::int64_t width)
    : geometry(make_geometry(recipe, height, width)),
      columns(make_coefficients(recipe.filter, Axis::kColumns, width, geometry.resized_width,
                                geometry.first_column, geometry.columns)),
      rows(make_coefficients(recipe.filter, Axis::kRows, height, geometry.resized_height,
                             geometry.first_row, geometry.rows)),
      // After a vertical pass only the columns of the window exist.
      paired_columns(
          pair_weights(columns, geometry.vertical_first ? columns.source_end() : width)) {}

SourceWindow Resampling::source_window() const noexcept {
  const auto height = static_cast<std::int32_t>(geometry.source_height);
  const std::int32_t top = std::max(rows.source_begin(), 0), left = columns.source_begin();
  return {top, std::min(rows.source_end(), height) - top, left, columns.source_end() - left};
}

ResamplingCache::ResamplingCache(const Recipe& recipe, std::size_t capacity)
    : recipe_(recipe), capacity_(capacity) {
  entries_.reserve(capacity);
}

std::shared_ptr<const Resampling> ResamplingCache::find(std::int64_t height, std::int64_t width) {
  for (Entry& entry : entries_) {
    if (entry.height == height && entry.width == width) {
      entry.last_use = ++uses_;
      return entry.resampling;
    }
  }
  return nullptr;
}

std::shared_ptr<const Resampling> ResamplingCache::get(std::int64_t height, std::int64_t width) {
  {
    const std::lock_guard lock(mutex_);
    if (auto found = find(height, width)) return found;
  }
  auto made = std::make_shared<const Resampling>(recipe_, height, width);
  const std::lock_guard lock(mutex_);
  if (auto found = find(height, width)) return found;  // another thread was faster
  if (entries_.size() < capacity_) {
    entries_.push_back({height, width, made, ++uses_});
  } else {
    *std::ranges::min_element(entries_, {}, &Entry::last_use) = {height, width, made, ++uses_};
  }
  return made;
}

}  // namespace trtinfer::preprocess
