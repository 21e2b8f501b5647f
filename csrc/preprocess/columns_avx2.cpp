#include "preprocess/columns_avx2.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#define TRTINFER_AVX2 __attribute__((target("avx2")))
#define TRTINFER_AVX2_INLINE __attribute__((target("avx2"), always_inline)) inline
#endif

namespace trtinfer::preprocess {

#if defined(__x86_64__)

namespace {

constexpr char kNone = -1;  // a zero byte of a shuffle

// Pixels (0, 1) and (2, 3) of four RGB pixels as pairs of 16-bit numbers: R R G G B B 0 0.
TRTINFER_AVX2_INLINE __m256i first_pair_order() {
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(0, kNone, 3, kNone, 1, kNone, 4, kNone, 2, kNone,
                                                   5, kNone, kNone, kNone, kNone, kNone));
}
TRTINFER_AVX2_INLINE __m256i second_pair_order() {
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(6, kNone, 9, kNone, 7, kNone, 10, kNone, 8,
                                                   kNone, 11, kNone, kNone, kNone, kNone, kNone));
}

// 16 bytes of each of two rows, in the two halves of the register.
TRTINFER_AVX2_INLINE __m256i load_two(const std::uint8_t* first, const std::uint8_t* second) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

// The low and the high halves of the sums of two rows' R, G, B.
struct Sums {
  __m256i low, high;
};

TRTINFER_AVX2_INLINE void add_pair(Sums& sums, __m256i pixels, __m256i order,
                                   const std::int32_t* halves) {
  const __m256i values = _mm256_shuffle_epi8(pixels, order);
  const __m256i low = _mm256_madd_epi16(values, _mm256_set1_epi32(halves[0]));
  const __m256i high = _mm256_madd_epi16(values, _mm256_set1_epi32(halves[2]));
  sums.low = _mm256_add_epi32(sums.low, low);
  sums.high = _mm256_add_epi32(sums.high, high);
}

// Writes R, G, B and one value more, which the next column overwrites.
TRTINFER_AVX2_INLINE void store(__m256i sum, std::uint8_t* first, std::uint8_t* second) {
  const __m256i shifted = _mm256_srai_epi32(sum, PillowArithmetic::kFractionBits);
  const __m256i words = _mm256_packs_epi32(shifted, shifted);
  const __m256i bytes = _mm256_packus_epi16(words, words);  // saturates: clip_to_byte
  _mm_storeu_si32(first, _mm256_castsi256_si128(bytes));
  _mm_storeu_si32(second, _mm256_extracti128_si256(bytes, 1));
}
TRTINFER_AVX2_INLINE void store(__m256i sum, std::int16_t* first, std::int16_t* second) {
  const __m256i shifted = _mm256_srai_epi32(sum, 4);
  const __m256i words = _mm256_packs_epi32(shifted, shifted);
  _mm_storeu_si64(first, _mm256_castsi256_si128(words));
  _mm_storeu_si64(second, _mm256_extracti128_si256(words, 1));
}

// GCC drops a target attribute from a template that is instantiated explicitly, so the body is a
// template and the two functions around it are not.
template <class Arithmetic>
TRTINFER_AVX2_INLINE int resample_columns_body(const Resampling& resampling, const Sources& sources,
                                               const Outputs<Arithmetic>& outputs) {
  const PairedWeights& weights = resampling.paired_columns;
  const __m256i first_pair = first_pair_order(), second_pair = second_pair_order();
  const __m256i start = _mm256_set1_epi32(Arithmetic::kFirstStart);
  const std::int32_t* halves = weights.halves.data();
  const Taps* taps = resampling.columns.taps.data();
  const int groups = weights.pairs / 2;
  const bool odd = weights.pairs % 2 != 0;
  for (int x = 0; x < weights.outputs; ++x) {
    const std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(taps[x].first) * 3;
    const std::uint8_t* first = sources[0] + offset;
    const std::uint8_t* second = sources[1] + offset;
    Sums sums{start, _mm256_setzero_si256()};
    for (int group = 0; group < groups; ++group, first += 12, second += 12, halves += 4) {
      const __m256i pixels = load_two(first, second);
      add_pair(sums, pixels, first_pair, halves);
      add_pair(sums, pixels, second_pair, halves + 1);
    }
    if (odd) {
      add_pair(sums, load_two(first, second), first_pair, halves);
      halves += 4;
    }
    const __m256i sum = _mm256_add_epi32(sums.low, _mm256_slli_epi32(sums.high, 16));
    store(sum, outputs[0] + 3 * x, outputs[1] + 3 * x);
  }
  return weights.outputs;
}

}  // namespace

bool has_avx2() noexcept {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}

TRTINFER_AVX2 int resample_columns_avx2(PillowArithmetic, const Resampling& resampling,
                                        const Sources& sources,
                                        const Outputs<PillowArithmetic>& outputs) {
  return resample_columns_body<PillowArithmetic>(resampling, sources, outputs);
}

TRTINFER_AVX2 int resample_columns_avx2(OpencvArithmetic, const Resampling& resampling,
                                        const Sources& sources,
                                        const Outputs<OpencvArithmetic>& outputs) {
  return resample_columns_body<OpencvArithmetic>(resampling, sources, outputs);
}

#else

bool has_avx2() noexcept { return false; }

int resample_columns_avx2(PillowArithmetic, const Resampling&, const Sources&,
                          const Outputs<PillowArithmetic>&) {
  return 0;
}

int resample_columns_avx2(OpencvArithmetic, const Resampling&, const Sources&,
                          const Outputs<OpencvArithmetic>&) {
  return 0;
}

#endif

}  // namespace trtinfer::preprocess
