#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "tensorrt/callback_object.hpp"

namespace trtinfer::tensorrt {

/// How far one phase of a build is. Phases are nested: a phase without a parent is a whole build.
struct Progress {
  std::string phase, parent;
  std::int32_t step = 0, steps = 0;
};

/// Called from threads of TensorRT, one call at a time; false stops the build.
using ProgressCallback = std::function<bool(const Progress&)>;

/// The IProgressMonitor given to TensorRT.
class ProgressMonitor {
 public:
  explicit ProgressMonitor(ProgressCallback callback);

  void* interface() { return object_.interface(); }
  /// What the callback threw, which also stopped the build; rethrown here.
  void rethrow() const;
  /// True when the callback asked for the build to stop.
  bool stopped() const { return stopped_; }

 private:
  static void start(void* interface, const char* phase, const char* parent,
                    std::int32_t steps) noexcept;
  static bool step(void* interface, const char* phase, std::int32_t step) noexcept;
  static void finish(void* interface, const char* phase) noexcept;
  bool report(const Progress& progress) noexcept;

  std::mutex mutex_;
  ProgressCallback callback_;
  std::map<std::string, Progress> phases_;
  std::exception_ptr error_;
  bool stopped_ = false;
  CallbackObject object_;
};

}  // namespace trtinfer::tensorrt
