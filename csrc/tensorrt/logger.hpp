#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tensorrt/abi.hpp"
#include "tensorrt/callback_object.hpp"

namespace trtinfer::tensorrt {

struct Message {
  Severity severity;
  std::string text;
};

/// The ILogger given to TensorRT; keeps the latest messages. Thread-safe. Must outlive every object
/// of its library, which keeps the first logger that it sees for ever.
class Logger {
 public:
  explicit Logger(const CallbackSlots& slots);

  void* interface() { return object_.interface(); }
  int misused_slot() const { return object_.misused_slot(); }

  /// Messages less severe than this are dropped; kWarning at first.
  void set_level(Severity level);

  /// How many messages were kept so far; what errors_since() takes.
  std::uint64_t mark() const;

  /// The latest errors after `mark`, those of calls that ran at the same time in other threads too.
  std::vector<std::string> errors_since(std::uint64_t mark) const;

  /// The messages since the last drain(), as far as they are still kept.
  std::vector<Message> drain();

  /// "`what`: " and the errors since `mark`.
  std::string explain(std::string what, std::uint64_t mark) const;

 private:
  static void log(void* interface, Severity severity, const char* text) noexcept;
  void add(Severity severity, const char* text);

  mutable std::mutex mutex_;
  std::deque<Message> messages_;
  std::uint64_t kept_ = 0, drained_ = 0;
  Severity level_ = Severity::kWarning;
  CallbackObject object_;
};

}  // namespace trtinfer::tensorrt
