#include <cuda_runtime_api.h>

#include "cuda/error.hpp"
#include "preprocess/kernels.hpp"
#include "preprocess/tile.hpp"

namespace trtinfer::preprocess {

namespace {

// Below this many tiles of 16 rows, tiles of 8 rows keep more of the GPU busy.
constexpr int kManyTiles = 512;

template <class Arithmetic, int kRows>
__global__ void __launch_bounds__(kTileThreads)
    preprocess_tiles(const void* batch, BatchOutput output) {
  using Tile = Tile<Arithmetic, kRows>;
  __shared__ typename Tile::Shared shared;
  const int thread = static_cast<int>(threadIdx.x);
  const int image = static_cast<int>(blockIdx.z);
  const Tile tile(batch, image, blockIdx.y * kRows, blockIdx.x * kTileColumns);
  typename Tile::Sums sums;
  tile.start(sums);
  const int chunks = tile.chunks();
  for (int i = 0; i < chunks; ++i) {
    const Chunk chunk = tile.chunk(i);
    tile.load(chunk, thread, shared);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    tile.first_pass(chunk, thread, shared);
    __syncthreads();
    tile.second_pass(chunk, thread, shared, sums);
  }
  tile.write(output, image, thread, sums);
}

int tiles_of(int length, int tile) { return (length + tile - 1) / tile; }

template <class Arithmetic, int kRows>
void launch_tiles(const BatchLaunch& launch, const BatchOutput& output, cudaStream_t stream) {
  const dim3 grid(tiles_of(launch.width, kTileColumns), tiles_of(launch.height, kRows),
                  launch.images);
  preprocess_tiles<Arithmetic, kRows><<<grid, kTileThreads, 0, stream>>>(launch.batch, output);
}

template <class Arithmetic>
void launch_with(const Recipe& recipe, const BatchLaunch& launch, cudaStream_t stream) {
  const BatchOutput output{.data = launch.output,
                           .table = launch.table,
                           .height = launch.height,
                           .width = launch.width,
                           .pad_value = recipe.pad_value,
                           .bgr = recipe.channel_order == ChannelOrder::kBgr,
                           .half = recipe.dtype == Dtype::kFloat16};
  const int tiles =
      tiles_of(launch.width, kTileColumns) * tiles_of(launch.height, 16) * launch.images;
  if (tiles < kManyTiles) {
    launch_tiles<Arithmetic, 8>(launch, output, stream);
  } else {
    launch_tiles<Arithmetic, 16>(launch, output, stream);
  }
}

}  // namespace

void launch_batch(const Recipe& recipe, const BatchLaunch& launch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (recipe.filter == Filter::kOpencvLinear) {
    launch_with<OpencvArithmetic>(recipe, launch, cuda_stream);
  } else {
    launch_with<PillowArithmetic>(recipe, launch, cuda_stream);
  }
  cuda::check(cudaGetLastError(), "launch of the preprocessing kernel");
}

}  // namespace trtinfer::preprocess
