#include "cuda/stream.hpp"

#include <string>

#include "cuda/error.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace trtinfer::cuda {

#if TRTINFER_CUDA

namespace {

cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.get()); }
cudaEvent_t native(const Event& event) { return static_cast<cudaEvent_t>(event.get()); }

}  // namespace

void DestroyStream::operator()(void* stream) const noexcept {
  cudaStreamDestroy(static_cast<cudaStream_t>(stream));
}

void DestroyEvent::operator()(void* event) const noexcept {
  cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

Stream::Stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_.reset(stream);
}

void Stream::synchronize() const {
  check(cudaStreamSynchronize(native(*this)), "cudaStreamSynchronize");
}

bool Stream::idle() const {
  const cudaError_t code = cudaStreamQuery(native(*this));
  if (code == cudaErrorNotReady) return false;
  check(code, "cudaStreamQuery");
  return true;
}

void Stream::wait(const Event& event) const {
  check(cudaStreamWaitEvent(native(*this), native(event), 0), "cudaStreamWaitEvent");
}

Event::Event(EventKind kind) {
  unsigned flags = kind == EventKind::kTimed ? cudaEventDefault : cudaEventDisableTiming;
  if (kind == EventKind::kBlocking) flags |= cudaEventBlockingSync;
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  event_.reset(event);
}

void Event::record(void* stream) const {
  check(cudaEventRecord(native(*this), static_cast<cudaStream_t>(stream)), "cudaEventRecord");
}

void Event::block(void* stream) const {
  check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), native(*this), 0),
        "cudaStreamWaitEvent");
}

bool Event::done() const {
  const cudaError_t code = cudaEventQuery(native(*this));
  if (code == cudaErrorNotReady) return false;
  check(code, "cudaEventQuery");
  return true;
}

void Event::synchronize() const {
  check(cudaEventSynchronize(native(*this)), "cudaEventSynchronize");
}

double Event::microseconds_since(const Event& start) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, native(start), native(*this)), "cudaEventElapsedTime");
  return milliseconds * 1e3;
}

CurrentDevice::CurrentDevice(int device) : device_(device) {
  if (const int code = failure_of(device); code != 0) {
    throw Error(code, "an earlier use of GPU " + std::to_string(device));
  }
  check(cudaGetDevice(&before_), "cudaGetDevice");
  // Also where it is the same: a new thread's device has a number, but no context is current yet,
  // and TensorRT calls the driver, which does not make one as the runtime does.
  check(cudaSetDevice(device_), "cudaSetDevice");
}

CurrentDevice::~CurrentDevice() {
  if (before_ != device_) cudaSetDevice(before_);
}

void copy_async(void* to, const void* from, std::size_t bytes, const Stream& stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, native(stream)), "cudaMemcpyAsync");
}

void copy_rows_async(void* to, const void* from, const Rows& rows, const Stream& stream) {
  if (rows.rows == 1) return copy_async(to, from, rows.row_bytes, stream);
  check(cudaMemcpy2DAsync(to, rows.to_stride, from, rows.from_stride, rows.row_bytes, rows.rows,
                          cudaMemcpyDefault, native(stream)),
        "cudaMemcpy2DAsync");
}

void clear_async(void* memory, std::size_t bytes, const Stream& stream) {
  check(cudaMemsetAsync(memory, 0, bytes, native(stream)), "cudaMemsetAsync");
}

#else

void DestroyStream::operator()(void*) const noexcept {}
void DestroyEvent::operator()(void*) const noexcept {}
Stream::Stream() { throw Error(kNoDevice, "a build without CUDA"); }
void Stream::synchronize() const {}
bool Stream::idle() const { return true; }
void Stream::wait(const Event&) const {}
Event::Event(EventKind) { throw Error(kNoDevice, "a build without CUDA"); }
void Event::record(void*) const {}
void Event::block(void*) const {}
bool Event::done() const { return true; }
void Event::synchronize() const {}
double Event::microseconds_since(const Event&) const { return 0; }
CurrentDevice::CurrentDevice(int) { throw Error(kNoDevice, "a build without CUDA"); }
CurrentDevice::~CurrentDevice() {}  // none was ever made
void copy_async(void*, const void*, std::size_t, const Stream&) {}
void copy_rows_async(void*, const void*, const Rows&, const Stream&) {}
void clear_async(void*, std::size_t, const Stream&) {}

#endif

}  // namespace trtinfer::cuda
