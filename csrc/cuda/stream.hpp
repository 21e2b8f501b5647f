// Streams and events, each with one owner. Handles are passed on as void*, so that only
// this folder needs CUDA's headers.
#pragma once

#include <cstddef>
#include <memory>

namespace trtinfer::cuda {

class Event;

struct DestroyStream {
  void operator()(void* stream) const noexcept;
};
struct DestroyEvent {
  void operator()(void* event) const noexcept;
};

// A cudaStream_t that does not wait for the legacy default stream. Move-only.
class Stream {
 public:
  Stream();
  void* get() const noexcept { return stream_.get(); }

  // Sleeps until all work enqueued so far is done. Throws Error, also for earlier kernels' faults.
  void synchronize() const;

  // Whether that work is done now.
  bool idle() const;

  // Work enqueued from now on starts after the event's last record, on whichever GPU.
  void wait(const Event& event) const;

 private:
  std::unique_ptr<void, DestroyStream> stream_;
};

// Whether waits for an event keep a core busy or sleep; a timed one spins and knows its time.
enum class EventKind { kSpinning, kBlocking, kTimed };

// A cudaEvent_t. Move-only.
class Event {
 public:
  explicit Event(EventKind kind = EventKind::kSpinning);
  void* get() const noexcept { return event_.get(); }

  void record(const Stream& stream) const { record(stream.get()); }

  // On a cudaStream_t of somebody else, of the GPU that was current when the event was made.
  void record(void* stream) const;

  // Has a cudaStream_t of somebody else wait for the last record.
  void block(void* stream) const;

  // True once the work before the last record is done. Throws Error for a fault.
  bool done() const;

  // Waits until then.
  void synchronize() const;

  // Microseconds on the GPU since another event; both are timed and done.
  double microseconds_since(const Event& start) const;

 private:
  std::unique_ptr<void, DestroyEvent> event_;
};

// Makes a GPU and its primary context current for the calling thread, and the GPU before it when
// this dies: threads of the caller's own must find their device as they left it.
class CurrentDevice {
 public:
  // Throws Error, also for a GPU that has failed before: TensorRT may crash on one.
  explicit CurrentDevice(int device);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0, device_ = 0;
};

// Enqueues a copy between any two kinds of memory.
void copy_async(void* to, const void* from, std::size_t bytes, const Stream& stream);

// The same for `rows` rows of `row_bytes` bytes that lie `to_stride` and `from_stride` apart.
struct Rows {
  std::size_t rows, row_bytes, to_stride, from_stride;
};
void copy_rows_async(void* to, const void* from, const Rows& rows, const Stream& stream);

// Enqueues zeros for memory of the GPU.
void clear_async(void* memory, std::size_t bytes, const Stream& stream);

}  // namespace trtinfer::cuda
