#include "preprocess/rows.hpp"

#include <algorithm>
#include <atomic>

namespace trtinfer::preprocess {

namespace {

std::atomic<bool> simd_allowed{true};

bool use_avx2() noexcept { return has_avx2() && simd_allowed.load(std::memory_order_relaxed); }

template <class Arithmetic>
void resample_columns_portable(const Coefficients& columns, int begin, const std::uint8_t* source,
                               typename Arithmetic::Middle* output) {
  for (int x = begin; x < columns.size(); ++x) {
    const std::int32_t* weights = &columns.weights[static_cast<std::size_t>(x) * columns.stride];
    const Taps taps = columns.taps[x];
    const std::uint8_t* pixel = source + static_cast<std::ptrdiff_t>(taps.first) * 3;
    std::int32_t r = Arithmetic::kFirstStart, g = r, b = r;
    for (int t = 0; t < taps.count; ++t, pixel += 3) {
      r += Arithmetic::first_term(weights[t], pixel[0]);
      g += Arithmetic::first_term(weights[t], pixel[1]);
      b += Arithmetic::first_term(weights[t], pixel[2]);
    }
    output[3 * x] = Arithmetic::first_result(r);
    output[3 * x + 1] = Arithmetic::first_result(g);
    output[3 * x + 2] = Arithmetic::first_result(b);
  }
}

// Adds `count` rows to the sums; a fixed count keeps the sums in registers meanwhile.
template <class Arithmetic, int count, class Value>
TRTINFER_HOST_DEVICE void add_rows(const std::int32_t* weights, const Value* const* rows, int begin,
                                   int width, std::int32_t* sums) {
  for (int x = 0; x < width; ++x) {
    std::int32_t sum = sums[x];
    for (int t = 0; t < count; ++t) {
      sum += Arithmetic::second_term(weights[t], rows[t][begin + x]);
    }
    sums[x] = sum;
  }
}

// Written for the compiler to vectorize, at whatever width its caller is compiled for.
template <class Arithmetic, class Value>
TRTINFER_HOST_DEVICE void resample_rows_block(const std::int32_t* weights, const Value* const* rows,
                                              int taps, int width, std::uint8_t* output) {
  constexpr int kBlock = 512;
  std::int32_t sums[kBlock];
  for (int begin = 0; begin < width; begin += kBlock) {
    const int n = std::min(kBlock, width - begin);
    for (int x = 0; x < n; ++x) sums[x] = Arithmetic::kSecondStart;
    int t = 0;
    for (; t + 4 <= taps; t += 4) add_rows<Arithmetic, 4>(weights + t, rows + t, begin, n, sums);
    if (taps - t == 3) add_rows<Arithmetic, 3>(weights + t, rows + t, begin, n, sums);
    if (taps - t == 2) add_rows<Arithmetic, 2>(weights + t, rows + t, begin, n, sums);
    if (taps - t == 1) add_rows<Arithmetic, 1>(weights + t, rows + t, begin, n, sums);
    for (int x = 0; x < n; ++x) output[begin + x] = Arithmetic::second_result(sums[x]);
  }
}

#if defined(__x86_64__)
// Not templates: see columns_avx2.cpp.
__attribute__((target("avx2"))) void resample_rows_avx2(PillowArithmetic,
                                                        const std::int32_t* weights,
                                                        const std::uint8_t* const* rows, int taps,
                                                        int width, std::uint8_t* output) {
  resample_rows_block<PillowArithmetic>(weights, rows, taps, width, output);
}
__attribute__((target("avx2"))) void resample_rows_avx2(OpencvArithmetic,
                                                        const std::int32_t* weights,
                                                        const std::int16_t* const* rows, int taps,
                                                        int width, std::uint8_t* output) {
  resample_rows_block<OpencvArithmetic>(weights, rows, taps, width, output);
}
#endif

}  // namespace

void allow_simd(bool allowed) noexcept { simd_allowed = allowed; }

template <class Arithmetic>
void resample_columns(const Resampling& resampling, const Sources& sources,
                      const Outputs<Arithmetic>& outputs) {
  int done = 0;
  if (use_avx2()) done = resample_columns_avx2(Arithmetic{}, resampling, sources, outputs);
  resample_columns_portable<Arithmetic>(resampling.columns, done, sources[0], outputs[0]);
  if (outputs[1] != outputs[0])
    resample_columns_portable<Arithmetic>(resampling.columns, done, sources[1], outputs[1]);
}

template <class Arithmetic>
void resample_rows(const std::int32_t* weights, const typename Arithmetic::Middle* const* rows,
                   int taps, int width, std::uint8_t* output) {
#if defined(__x86_64__)
  if (use_avx2()) return resample_rows_avx2(Arithmetic{}, weights, rows, taps, width, output);
#endif
  resample_rows_block<Arithmetic>(weights, rows, taps, width, output);
}

template <class Element>
void write_planes(const std::uint8_t* pixels, int columns, const Element* table, ChannelOrder order,
                  const std::array<Element*, 3>& planes) {
  for (int c = 0; c < 3; ++c) {
    const std::uint8_t* pixel = pixels + (order == ChannelOrder::kBgr ? 2 - c : c);
    const Element* values = table + c * 256;
    Element* plane = planes[c];
    for (int x = 0; x < columns; ++x) plane[x] = values[pixel[3 * x]];
  }
}

template void resample_columns<PillowArithmetic>(const Resampling&, const Sources&,
                                                 const Outputs<PillowArithmetic>&);
template void resample_columns<OpencvArithmetic>(const Resampling&, const Sources&,
                                                 const Outputs<OpencvArithmetic>&);
template void resample_rows<PillowArithmetic>(const std::int32_t*, const std::uint8_t* const*, int,
                                              int, std::uint8_t*);
template void resample_rows<OpencvArithmetic>(const std::int32_t*, const std::int16_t* const*, int,
                                              int, std::uint8_t*);
template void write_planes<float>(const std::uint8_t*, int, const float*, ChannelOrder,
                                  const std::array<float*, 3>&);
template void write_planes<std::uint16_t>(const std::uint8_t*, int, const std::uint16_t*,
                                          ChannelOrder, const std::array<std::uint16_t*, 3>&);

}  // namespace trtinfer::preprocess
