#include "preprocess/coefficients.hpp"

#include <algorithm>
#include <cmath>

namespace trtinfer::preprocess {

namespace {

double triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys' cubic convolution with a = -1/2; the terms are ordered as Pillow evaluates them.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

struct Kernel {
  double support;
  double (*weight)(double);
};

Kernel kernel_of(Filter filter) {
  return filter == Filter::kBicubic ? Kernel{2.0, cubic} : Kernel{1.0, triangle};
}

std::int32_t to_fixed(double weight) {
  constexpr double one = 1 << PillowArithmetic::kFractionBits;
  return static_cast<std::int32_t>((weight < 0.0 ? -0.5 : 0.5) + weight * one);
}

// Pillow's antialiased resampling: when shrinking, the kernel is stretched by the scale; at the
// edges its window is cut off and the weights that are left are normalized again.
Coefficients pillow_coefficients(Filter filter, std::int64_t source, std::int64_t target,
                                 std::int64_t first, int count) {
  const Kernel kernel = kernel_of(filter);
  const double scale = static_cast<double>(static_cast<float>(source)) / target;
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.support * stretch;
  const double inverse = 1.0 / stretch;

  Coefficients result;
  result.stride = static_cast<int>(
      std::min<std::int64_t>(source, static_cast<std::int64_t>(std::ceil(support)) * 2 + 1));
  result.taps.resize(count);
  result.weights.assign(static_cast<std::size_t>(count) * result.stride, 0);
  std::vector<double> weights(result.stride);
  for (int i = 0; i < count; ++i) {
    const double center = (static_cast<double>(first + i) + 0.5) * scale;
    const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto end =
        std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), source);
    const int taps = static_cast<int>(end - begin);
    double sum = 0.0;
    for (int t = 0; t < taps; ++t) {
      weights[t] = kernel.weight((static_cast<double>(t + begin) - center + 0.5) * inverse);
      sum += weights[t];
    }
    result.taps[i] = {static_cast<std::int32_t>(begin), taps};
    std::int32_t* row = &result.weights[static_cast<std::size_t>(i) * result.stride];
    for (int t = 0; t < taps; ++t) row[t] = to_fixed(sum != 0.0 ? weights[t] / sum : weights[t]);
  }
  return result;
}

// A pass that Pillow leaves out: every pixel is itself.
Coefficients identity(std::int64_t first, int count) {
  Coefficients result;
  result.stride = 1;
  for (int i = 0; i < count; ++i) {
    result.taps.push_back({static_cast<std::int32_t>(first + i), 1});
    result.weights.push_back(1 << PillowArithmetic::kFractionBits);
  }
  return result;
}

// OpenCV's INTER_LINEAR of bytes. Columns outside the source lose their weight; rows outside keep
// it, and are the nearest row (see Taps).
Coefficients opencv_coefficients(Axis axis, std::int64_t source, std::int64_t target,
                                 std::int64_t first, int count) {
  constexpr float one = 1 << OpencvArithmetic::kFractionBits;
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  Coefficients result;
  result.stride = 2;
  result.taps.resize(count);
  result.weights.assign(static_cast<std::size_t>(count) * 2, 0);
  for (int i = 0; i < count; ++i) {
    const float position = static_cast<float>((static_cast<double>(first + i) + 0.5) * scale - 0.5);
    float begin = std::floor(position);
    float fraction = position - begin;
    int taps = 2;
    if (axis == Axis::kColumns) {
      const auto last = static_cast<float>(source - 1);
      if (begin < 0.0F || begin >= last) fraction = 0.0F;
      begin = std::clamp(begin, 0.0F, last);
      if (begin >= last) taps = 1;
    }
    result.taps[i] = {static_cast<std::int32_t>(begin), taps};
    result.weights[2 * i] = static_cast<std::int32_t>(std::nearbyint((1.0F - fraction) * one));
    if (taps == 2)
      result.weights[2 * i + 1] = static_cast<std::int32_t>(std::nearbyint(fraction * one));
  }
  return result;
}

}  // namespace

std::int32_t Coefficients::source_begin() const noexcept {
  std::int32_t begin = taps.front().first;
  for (const Taps& t : taps) begin = std::min(begin, t.first);
  return begin;
}

std::int32_t Coefficients::source_end() const noexcept {
  std::int32_t end = 0;
  for (const Taps& t : taps) end = std::max(end, t.first + t.count);
  return end;
}

Coefficients make_coefficients(Filter filter, Axis axis, std::int64_t source, std::int64_t target,
                               std::int64_t first, int count) {
  if (filter == Filter::kOpencvLinear)
    return opencv_coefficients(axis, source, target, first, count);
  if (source == target) return identity(first, count);
  return pillow_coefficients(filter, source, target, first, count);
}

}  // namespace trtinfer::preprocess
