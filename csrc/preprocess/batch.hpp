// A batch of images of different sizes as one block of memory that the GPU reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "preprocess/resample.hpp"
#include "preprocess/resampling.hpp"

namespace trtinfer::preprocess {

// One image of a batch: where its pixels are, how they are placed (see Geometry), and where its
// weights are, counted in int32s from the start of the batch. Its row weights lie as in
// Coefficients; its column weights lie tap by tap, [tap * columns + column], so that neighboring
// threads read neighboring weights, and their taps are rounded up to a multiple of 4.
struct BatchImage {
  const std::uint8_t* source;
  std::int64_t source_stride;
  std::int32_t source_height;
  std::int32_t rows, columns, top, left;
  std::int32_t vertical_first;
  std::int32_t row_stride;   // int32s of one output row's weights
  std::int32_t column_taps;  // a multiple of 4
  std::int32_t row_taps_at, row_weights_at, column_taps_at, column_weights_at;
};

// What a batch is made from; data is readable by the GPU, and up to the next multiple of 16 bytes
// on both sides.
struct BatchSource {
  const Resampling* resampling;
  const std::uint8_t* data;
  std::ptrdiff_t row_stride;
};

// Where a batch's outputs go: images x 3 x height x width elements, bits of float32 or float16,
// from a table of kTableSize entries of the same kind.
struct BatchOutput {
  void* data;
  const void* table;
  std::int32_t height, width;
  std::uint8_t pad_value;
  bool bgr;
  bool half;

  TRTINFER_HOST_DEVICE void write(std::int64_t index, int entry) const {
    if (half) {
      static_cast<std::uint16_t*>(data)[index] = static_cast<const std::uint16_t*>(table)[entry];
    } else {
      static_cast<std::uint32_t*>(data)[index] = static_cast<const std::uint32_t*>(table)[entry];
    }
  }
};

// Bytes of a batch of these images.
std::size_t batch_bytes(std::span<const BatchSource> sources);

// Writes batch_bytes(sources) bytes: the BatchImages, then their taps and weights. batch is aligned
// to 8 bytes; it holds no pointer into itself, so that it may be copied.
void write_batch(std::span<const BatchSource> sources, void* batch);

}  // namespace trtinfer::preprocess
