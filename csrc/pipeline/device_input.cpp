#include "pipeline/device_input.hpp"

#include <string>

#include "cuda/device.hpp"
#include "cuda/error.hpp"
#include "cuda/handover.hpp"
#include "pipeline/executor.hpp"

namespace trtinfer::pipeline {

void copy_async(const DeviceInput& input, std::byte* to, std::size_t to_stride,
                const cuda::Stream& stream) {
  if (input.ready != nullptr) stream.wait(*input.ready);
  try {
    cuda::copy_rows_async(to, input.data,
                          {input.blocks, input.block_bytes, to_stride, input.stride}, stream);
  } catch (const cuda::Error& error) {
    const bool is_elsewhere = input.device != cuda::current_device();
    if (error.code() != cuda::kInvalidValue && !is_elsewhere) throw;
    stream.synchronize();  // copies before it may read memory that its owners now give up
    throw BatchError("an input on GPU " + std::to_string(input.device) +
                     " cannot be read: " + error.what());
  }
}

void fetch(const DeviceInput& input, std::byte* to) {
  const cuda::CurrentDevice device(input.device);
  const cuda::HandoverStream stream;
  copy_async(input, to, input.block_bytes, stream.get());
  stream.get().synchronize();
}

}  // namespace trtinfer::pipeline
