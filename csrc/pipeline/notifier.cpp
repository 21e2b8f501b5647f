#include "pipeline/notifier.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace trtinfer::pipeline {

Notifier::Notifier() : descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Notifier::~Notifier() { ::close(descriptor_); }

void Notifier::add(std::shared_ptr<Request> request) {
  std::lock_guard lock(mutex_);
  if (!abandoned_) ended_.push_back(std::move(request));
}

void Notifier::write_descriptor() {
  const std::uint64_t one = 1;
  // The counter of an eventfd cannot overflow here: it is written at most once per drain.
  [[maybe_unused]] const auto written = ::write(descriptor_, &one, sizeof one);
}

void Notifier::signal() {
  {
    std::lock_guard lock(mutex_);
    if (signalled_ || ended_.empty()) return;
    signalled_ = true;
  }
  write_descriptor();
}

void Notifier::drain(std::vector<std::shared_ptr<Request>>& requests) {
  requests.clear();
  std::uint64_t count = 0;
  [[maybe_unused]] const auto read = ::read(descriptor_, &count, sizeof count);
  std::lock_guard lock(mutex_);
  requests.swap(ended_);
  signalled_ = false;
}

bool Notifier::wait() {
  pollfd poll{descriptor_, POLLIN, 0};
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (!ended_.empty()) return true;
      if (stopped_) return false;
    }
    ::poll(&poll, 1, -1);
    if (poll.revents == 0) continue;
    std::lock_guard lock(mutex_);
    return !ended_.empty() || !stopped_;
  }
}

void Notifier::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  write_descriptor();
}

void Notifier::abandon() {
  std::vector<std::shared_ptr<Request>> forgotten;  // dropped without the lock: they may call back
  std::lock_guard lock(mutex_);
  abandoned_ = true;
  forgotten.swap(ended_);
}

}  // namespace trtinfer::pipeline
