#include "cuda/handover.hpp"

#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <utility>

#include "cuda/device.hpp"

namespace trtinfer::cuda {
namespace {

constexpr std::size_t kMostPending = 32;  // of a GPU; then producers wait for each other after all

struct Pool {
  std::mutex mutex;
  std::map<int, std::deque<Stream>> streams;
};

Pool& pool() {
  static Pool* const pool = new Pool;  // CUDA may be gone before statics are destroyed
  return *pool;
}

Stream take(int device) {
  const std::lock_guard lock(pool().mutex);
  std::deque<Stream>& streams = pool().streams[device];
  auto found = streams.begin();
  while (found != streams.end() && !found->idle()) ++found;
  if (found == streams.end()) {
    if (streams.size() < kMostPending) return {};
    found = streams.begin();
  }
  Stream stream = std::move(*found);
  streams.erase(found);
  return stream;
}

}  // namespace

HandoverStream::HandoverStream() : device_(current_device()), stream_(take(device_)) {}

HandoverStream::~HandoverStream() {
  try {
    const std::lock_guard lock(pool().mutex);
    pool().streams[device_].push_back(std::move(stream_));
  } catch (const std::exception&) {  // no memory: it is destroyed instead
    return;
  }
}

void HandoverStream::wait_for(void* stream) const {
  const Event reached;
  reached.record(stream);
  stream_.wait(reached);
}

std::shared_ptr<const Event> HandoverStream::record() const {
  auto event = std::make_shared<Event>();
  event->record(stream_);
  return event;
}

}  // namespace trtinfer::cuda
