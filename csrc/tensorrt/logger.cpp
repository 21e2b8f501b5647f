#include "tensorrt/logger.hpp"

#include <algorithm>
#include <exception>

namespace trtinfer::tensorrt {
namespace {

constexpr std::size_t kMessages = 256;
constexpr std::size_t kErrors = 8;
constexpr std::size_t kTextBytes = 4096;

}  // namespace

Logger::Logger(const CallbackSlots& slots) : object_(this) {
  if (slots.log > 0) object_.set_versioned("ILogger");
  object_.set(slots.log, &Logger::log);
}

void Logger::log(void* interface, Severity severity, const char* text) noexcept {
  try {
    owner_of<Logger>(interface).add(severity, text);
  } catch (const std::exception&) {  // NOLINT: no memory for a message must not end the process
  }
}

void Logger::add(Severity severity, const char* text) {
  const std::lock_guard lock(mutex_);
  if (severity > level_ || text == nullptr) return;
  messages_.push_back({severity, std::string(text).substr(0, kTextBytes)});
  ++kept_;
  if (messages_.size() > kMessages) messages_.pop_front();
}

void Logger::set_level(Severity level) {
  const std::lock_guard lock(mutex_);
  level_ = level;
}

std::uint64_t Logger::mark() const {
  const std::lock_guard lock(mutex_);
  return kept_;
}

std::vector<std::string> Logger::errors_since(std::uint64_t mark) const {
  const std::lock_guard lock(mutex_);
  const std::size_t fresh = std::min<std::uint64_t>(kept_ - mark, messages_.size());
  std::vector<std::string> errors;
  for (std::size_t i = messages_.size() - fresh; i < messages_.size(); ++i) {
    if (messages_[i].severity <= Severity::kError) errors.push_back(messages_[i].text);
  }
  if (errors.size() > kErrors) errors.erase(errors.begin(), errors.end() - kErrors);
  return errors;
}

std::vector<Message> Logger::drain() {
  const std::lock_guard lock(mutex_);
  const std::size_t fresh = std::min<std::uint64_t>(kept_ - drained_, messages_.size());
  drained_ = kept_;
  return {messages_.end() - static_cast<std::ptrdiff_t>(fresh), messages_.end()};
}

std::string Logger::explain(std::string what, std::uint64_t mark) const {
  const std::vector<std::string> errors = errors_since(mark);
  if (errors.empty()) return what + ": TensorRT does not say why";
  for (std::size_t i = 0; i < errors.size(); ++i) what += (i == 0 ? ": " : "; ") + errors[i];
  return what;
}

}  // namespace trtinfer::tensorrt
