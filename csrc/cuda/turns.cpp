#include "cuda/turns.hpp"

#include <map>

namespace trtinfer::cuda {

Turns& Turns::of(int device) {
  // Never destroyed: the driver may be gone when the process ends.
  static auto& mutex = *new std::mutex;
  static auto& by_device = *new std::map<int, Turns>;
  const std::lock_guard lock(mutex);
  return by_device[device];
}

}  // namespace trtinfer::cuda
