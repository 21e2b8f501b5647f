// One tile of one image's output, as a block of GPU threads makes it. Everything here also compiles
// for the CPU, where a test runs the phases thread by thread.
#pragma once

#include <cstdint>

#include "preprocess/batch.hpp"
#include "preprocess/packed_pixel.hpp"
#include "preprocess/resample.hpp"

#if defined(__CUDACC__)
#include <cuda_pipeline_primitives.h>
#define TRTINFER_UNROLL _Pragma("unroll")
#else
#include <cstring>
#define TRTINFER_UNROLL
#endif

namespace trtinfer::preprocess {

inline constexpr int kWarpSize = 32;
inline constexpr int kTileWarps = 8;
inline constexpr int kTileThreads = kTileWarps * kWarpSize;
inline constexpr int kTileColumns = kWarpSize;  // a thread's lane is its column of the tile
inline constexpr int kStagedBytes = 36 * 1024;
inline constexpr int kMiddleBytes = 10 * 1024;

// A range of source rows, or with the vertical pass first of source columns, whose values between
// the passes are in shared memory at the same time.
struct Chunk {
  std::int32_t begin, end;
};

// The phases of one tile of kRows x kTileColumns outputs. Between load, first_pass and second_pass
// all threads of the block meet; load of the next chunk may overlap second_pass.
template <class Arithmetic, int kRows>
class Tile {
 public:
  using Pixel = PackedPixel<typename Arithmetic::Middle>;
  static constexpr int kMiddlePixels = kMiddleBytes / static_cast<int>(sizeof(Pixel));
  static constexpr int kRowsOfThread = kRows / kTileWarps;

  // Sums of a thread's outputs.
  struct Sums {
    std::int32_t value[kRowsOfThread][3];
  };

  struct Shared {
    alignas(16) std::uint8_t staged[kStagedBytes];
    alignas(16) Pixel middle[kMiddlePixels];
  };

  // first_row, first_column: of the tile, in the output.
  TRTINFER_HOST_DEVICE Tile(const void* batch, int image, int first_row, int first_column)
      : image_(static_cast<const BatchImage*>(batch)[image]),
        words_(static_cast<const std::int32_t*>(batch)),
        output_row_(first_row),
        output_column_(first_column),
        y_begin_(largest(first_row - image_.top, 0)),
        y_end_(smallest(first_row + kRows - image_.top, image_.rows)),
        x_begin_(largest(first_column - image_.left, 0)),
        x_end_(smallest(first_column + kTileColumns - image_.left, image_.columns)) {
    if (!has_pixels()) return;
    row_begin_ = row_taps(y_begin_).first;
    row_end_ = end_of(row_taps(y_end_ - 1));
    column_begin_ = column_taps(x_begin_).first;
    column_end_ = end_of(column_taps(x_end_ - 1));
  }

  // False: the tile is padding only, and has no chunks.
  TRTINFER_HOST_DEVICE bool has_pixels() const { return y_begin_ < y_end_ && x_begin_ < x_end_; }

  TRTINFER_HOST_DEVICE void start(Sums& sums) const {
    for (int i = 0; i < kRowsOfThread; ++i)
      for (int c = 0; c < 3; ++c) sums.value[i][c] = Arithmetic::kSecondStart;
  }

  TRTINFER_HOST_DEVICE int chunks() const {
    if (!has_pixels()) return 0;
    return (range_end() - range_begin() + longest_chunk() - 1) / longest_chunk();
  }

  // Chunks of equal length, the last one may be shorter.
  TRTINFER_HOST_DEVICE Chunk chunk(int index) const {
    const int length = (range_end() - range_begin() + chunks() - 1) / chunks();
    const int begin = range_begin() + index * length;
    return {smallest(begin, range_end()), smallest(begin + length, range_end())};
  }

  // Brings the source bytes of a chunk to shared memory, whole aligned blocks of 16 bytes.
  TRTINFER_HOST_DEVICE void load(const Chunk& chunk, int thread, Shared& shared) const {
    if (image_.vertical_first || !is_staged()) return;
    const int lane = thread % kWarpSize;
    for (int row = chunk.begin + thread / kWarpSize; row < chunk.end; row += kTileWarps) {
      const std::uint8_t* source = window_row(row);
      const int shift = misalignment(source);
      const int blocks = (shift + window_bytes() + 15) / 16;
      std::uint8_t* staged = shared.staged + (row - chunk.begin) * pitch();
      for (int block = lane; block < blocks; block += kWarpSize)
        copy16(staged + block * 16, source - shift + block * 16);
    }
  }

  TRTINFER_HOST_DEVICE void first_pass(const Chunk& chunk, int thread, Shared& shared) const {
    if (image_.vertical_first) {
      rows_to_middle(chunk, thread, shared);
    } else {
      columns_to_middle(chunk, thread, shared);
    }
  }

  TRTINFER_HOST_DEVICE void second_pass(const Chunk& chunk, int thread, const Shared& shared,
                                        Sums& sums) const {
    const int x = x_of(thread);
    if (!is_column(x)) return;
    TRTINFER_UNROLL
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int y = y_of(thread, i);
      if (!is_row(y)) continue;
      if (image_.vertical_first) {
        add_columns(chunk, y, x, shared, sums.value[i]);
      } else {
        add_rows(chunk, y, thread % kWarpSize, shared, sums.value[i]);
      }
    }
  }

  TRTINFER_HOST_DEVICE void write(const BatchOutput& output, int image, int thread,
                                  const Sums& sums) const {
    const int column = output_column_ + thread % kWarpSize;
    if (column >= output.width) return;
    const std::int64_t plane = static_cast<std::int64_t>(output.height) * output.width;
    TRTINFER_UNROLL
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int row = output_row_ + thread / kWarpSize + i * kTileWarps;
      if (row >= output.height) break;
      const bool inside = is_row(y_of(thread, i)) && is_column(x_of(thread));
      const std::int64_t first = image * 3 * plane + std::int64_t{row} * output.width + column;
      for (int c = 0; c < 3; ++c) {
        const std::int32_t sum = sums.value[i][output.bgr ? 2 - c : c];
        const int pixel = inside ? Arithmetic::second_result(sum) : output.pad_value;
        output.write(first + c * plane, c * 256 + pixel);
      }
    }
  }

 private:
  static constexpr int kPairRows = 2;  // rows of a horizontal pass that share the weights

  TRTINFER_HOST_DEVICE static int largest(int a, int b) { return a > b ? a : b; }
  TRTINFER_HOST_DEVICE static int smallest(int a, int b) { return a < b ? a : b; }
  TRTINFER_HOST_DEVICE static std::int32_t end_of(Taps taps) { return taps.first + taps.count; }
  TRTINFER_HOST_DEVICE static int misalignment(const std::uint8_t* p) {
    return static_cast<int>(reinterpret_cast<std::uintptr_t>(p) & 15U);
  }

  TRTINFER_HOST_DEVICE static void copy16(std::uint8_t* to, const std::uint8_t* from) {
#if defined(__CUDA_ARCH__)
    __pipeline_memcpy_async(to, from, 16);
#elif !defined(__CUDACC__)
    std::memcpy(to, from, 16);
#endif
  }

  TRTINFER_HOST_DEVICE Taps row_taps(int y) const {
    return reinterpret_cast<const Taps*>(words_ + image_.row_taps_at)[y];
  }
  TRTINFER_HOST_DEVICE Taps column_taps(int x) const {
    return reinterpret_cast<const Taps*>(words_ + image_.column_taps_at)[x];
  }
  TRTINFER_HOST_DEVICE const std::int32_t* row_weights(int y) const {
    return words_ + image_.row_weights_at + static_cast<std::int64_t>(y) * image_.row_stride;
  }
  // The weight of tap t is [t * image_.columns].
  TRTINFER_HOST_DEVICE const std::int32_t* column_weights(int x) const {
    return words_ + image_.column_weights_at + x;
  }

  // A thread's outputs, in the resized window.
  TRTINFER_HOST_DEVICE int x_of(int thread) const {
    return output_column_ - image_.left + thread % kWarpSize;
  }
  TRTINFER_HOST_DEVICE int y_of(int thread, int i) const {
    return output_row_ - image_.top + thread / kWarpSize + i * kTileWarps;
  }
  TRTINFER_HOST_DEVICE bool is_column(int x) const { return x >= x_begin_ && x < x_end_; }
  TRTINFER_HOST_DEVICE bool is_row(int y) const { return y >= y_begin_ && y < y_end_; }

  // Source bytes that the tile needs of every row, and their place in shared memory.
  TRTINFER_HOST_DEVICE int window_bytes() const { return (column_end_ - column_begin_) * 3; }
  TRTINFER_HOST_DEVICE int pitch() const { return (window_bytes() + 15 + 15) / 16 * 16; }
  // Words are read four taps and one word past the window's last taps, of whatever is there.
  TRTINFER_HOST_DEVICE int overrun() const { return image_.column_taps * 3 + 16; }
  TRTINFER_HOST_DEVICE bool is_staged() const { return pitch() + overrun() <= kStagedBytes; }
  TRTINFER_HOST_DEVICE const std::uint8_t* window_row(int row) const {
    const int real = smallest(largest(row, 0), image_.source_height - 1);
    return image_.source + real * image_.source_stride +
           static_cast<std::int64_t>(column_begin_) * 3;
  }

  TRTINFER_HOST_DEVICE int range_begin() const {
    return image_.vertical_first ? column_begin_ : row_begin_;
  }
  TRTINFER_HOST_DEVICE int range_end() const {
    return image_.vertical_first ? column_end_ : row_end_;
  }
  TRTINFER_HOST_DEVICE int longest_chunk() const {
    if (image_.vertical_first) return kMiddlePixels / kRows;
    if (!is_staged()) return kMiddlePixels / kTileColumns;
    return smallest((kStagedBytes - overrun()) / pitch(), kMiddlePixels / kTileColumns);
  }

  // Horizontal pass over a chunk of rows: middle[row][column of the tile].
  TRTINFER_HOST_DEVICE void columns_to_middle(const Chunk& chunk, int thread,
                                              Shared& shared) const {
    const int x = x_of(thread), lane = thread % kWarpSize;
    if (!is_column(x)) return;
    const Taps taps = column_taps(x);
    const int offset = (taps.first - column_begin_) * 3;
    const int step = kTileWarps * kPairRows;
    for (int row = chunk.begin + thread / kWarpSize * kPairRows; row < chunk.end; row += step) {
      std::int32_t sums[kPairRows][3];
      for (auto& sum : sums)
        for (std::int32_t& s : sum) s = Arithmetic::kFirstStart;
      if (is_staged()) {
        sum_staged(chunk, row, offset, x, shared, sums);
      } else {
        sum_unstaged(chunk, row, offset, x, taps.count, sums);
      }
      for (int i = 0; i < kPairRows && row + i < chunk.end; ++i) {
        shared.middle[(row + i - chunk.begin) * kTileColumns + lane] =
            Pixel::pack(Arithmetic::first_result(sums[i][0]), Arithmetic::first_result(sums[i][1]),
                        Arithmetic::first_result(sums[i][2]));
      }
    }
  }

  // Four bytes at any place, from the aligned words around it.
  TRTINFER_HOST_DEVICE static std::uint32_t join(std::uint32_t low, std::uint32_t high, int bits) {
#if defined(__CUDA_ARCH__)
    return __funnelshift_r(low, high, bits);
#else
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(high) << 32 | low) >> bits);
#endif
  }

  // Byte i of three words.
  TRTINFER_HOST_DEVICE static std::int32_t byte_of(const std::uint32_t (&words)[3], int i) {
    return static_cast<std::int32_t>((words[i / 4] >> (i % 4 * 8)) & 0xffU);
  }

  // Four taps are 12 bytes, three words; taps past an output's own have the weight 0.
  TRTINFER_HOST_DEVICE void sum_staged(const Chunk& chunk, int row, int offset, int x,
                                       const Shared& shared,
                                       std::int32_t (&sums)[kPairRows][3]) const {
    const std::uint32_t* words[kPairRows];
    std::uint32_t carried[kPairRows];
    int bits[kPairRows];
    for (int i = 0; i < kPairRows; ++i) {
      const int clamped = smallest(row + i, chunk.end - 1);
      const int at = (clamped - chunk.begin) * pitch() + misalignment(window_row(clamped)) + offset;
      words[i] = reinterpret_cast<const std::uint32_t*>(shared.staged) + at / 4;
      bits[i] = at % 4 * 8;
      carried[i] = *words[i]++;
    }
    const std::int32_t* weights = column_weights(x);
    for (int tap = 0; tap < image_.column_taps; tap += 4, weights += 4 * image_.columns) {
      std::int32_t weight[4];
      for (int t = 0; t < 4; ++t) weight[t] = weights[t * image_.columns];
      for (int i = 0; i < kPairRows; ++i) {
        const std::uint32_t next[3] = {words[i][0], words[i][1], words[i][2]};
        words[i] += 3;
        const std::uint32_t joined[3] = {join(carried[i], next[0], bits[i]),
                                         join(next[0], next[1], bits[i]),
                                         join(next[1], next[2], bits[i])};
        carried[i] = next[2];
        for (int t = 0; t < 4; ++t)
          for (int c = 0; c < 3; ++c)
            sums[i][c] += Arithmetic::first_term(weight[t], byte_of(joined, 3 * t + c));
      }
    }
  }

  // For windows that are too wide for shared memory.
  TRTINFER_HOST_DEVICE void sum_unstaged(const Chunk& chunk, int row, int offset, int x, int taps,
                                         std::int32_t (&sums)[kPairRows][3]) const {
    for (int i = 0; i < kPairRows && row + i < chunk.end; ++i) {
      const std::uint8_t* pixel = window_row(row + i) + offset;
      const std::int32_t* weights = column_weights(x);
      for (int t = 0; t < taps; ++t, pixel += 3, weights += image_.columns)
        for (int c = 0; c < 3; ++c) sums[i][c] += Arithmetic::first_term(*weights, pixel[c]);
    }
  }

  TRTINFER_HOST_DEVICE void add_rows(const Chunk& chunk, int y, int lane, const Shared& shared,
                                     std::int32_t (&sums)[3]) const {
    const Taps taps = row_taps(y);
    const std::int32_t* weights = row_weights(y) - taps.first;
    const int end = smallest(end_of(taps), chunk.end);
    for (int row = largest(taps.first, chunk.begin); row < end; ++row) {
      const Pixel pixel = shared.middle[(row - chunk.begin) * kTileColumns + lane];
      for (int c = 0; c < 3; ++c)
        sums[c] += Arithmetic::second_term(weights[row], pixel.channel(c));
    }
  }

  // Vertical pass over a chunk of columns: middle[row of the tile][column].
  TRTINFER_HOST_DEVICE void rows_to_middle(const Chunk& chunk, int thread, Shared& shared) const {
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int y = y_of(thread, i);
      if (!is_row(y)) continue;
      const int tile_row = thread / kWarpSize + i * kTileWarps;
      const Taps taps = row_taps(y);
      for (int x = chunk.begin + thread % kWarpSize; x < chunk.end; x += kWarpSize) {
        const std::int32_t* weights = row_weights(y);
        std::int32_t sums[3] = {Arithmetic::kFirstStart, Arithmetic::kFirstStart,
                                Arithmetic::kFirstStart};
        for (int t = 0; t < taps.count; ++t) {
          const std::uint8_t* pixel =
              window_row(taps.first + t) + static_cast<std::int64_t>(x - column_begin_) * 3;
          for (int c = 0; c < 3; ++c) sums[c] += Arithmetic::first_term(weights[t], pixel[c]);
        }
        shared.middle[tile_row * (kMiddlePixels / kRows) + x - chunk.begin] =
            Pixel::pack(Arithmetic::first_result(sums[0]), Arithmetic::first_result(sums[1]),
                        Arithmetic::first_result(sums[2]));
      }
    }
  }

  TRTINFER_HOST_DEVICE void add_columns(const Chunk& chunk, int y, int x, const Shared& shared,
                                        std::int32_t (&sums)[3]) const {
    const Taps taps = column_taps(x);
    const int tile_row = y + image_.top - output_row_;
    const Pixel* middle = shared.middle + tile_row * (kMiddlePixels / kRows) - chunk.begin;
    const int end = smallest(end_of(taps), chunk.end);
    for (int column = largest(taps.first, chunk.begin); column < end; ++column) {
      const std::int32_t weight = column_weights(x)[(column - taps.first) * image_.columns];
      const Pixel pixel = middle[column];
      for (int c = 0; c < 3; ++c) sums[c] += Arithmetic::second_term(weight, pixel.channel(c));
    }
  }

  const BatchImage image_;  // a copy: stores to shared memory must not make it be read again
  const std::int32_t* words_;
  const int output_row_, output_column_;
  const int y_begin_, y_end_, x_begin_, x_end_;
  int row_begin_ = 0, row_end_ = 0, column_begin_ = 0, column_end_ = 0;
};

}  // namespace trtinfer::preprocess
