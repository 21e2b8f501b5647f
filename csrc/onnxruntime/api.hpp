#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace trtinfer::onnxruntime {

/// ONNX Runtime's C interface as data. `OrtGetApiBase()->GetApi(version)` is a table of function
/// pointers to which releases only append, so a place in it never changes its meaning: the numbers
/// below are those places. No header of ONNX Runtime is needed, and one build drives every release
/// since 1.11. Objects are opaque pointers; every call that can fail returns a status, null for
/// success.

using Status = void;

/// Places in the table (documented as stable; tests compare results with ONNX Runtime's Python
/// API).
enum class Entry : std::size_t {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kCreateSessionFromArray = 8,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetSessionExecutionMode = 13,
  kSetSessionLogSeverityLevel = 22,
  kSetSessionGraphOptimizationLevel = 23,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kSessionGetInputCount = 30,
  kSessionGetOutputCount = 31,
  kSessionGetInputTypeInfo = 33,
  kSessionGetOutputTypeInfo = 34,
  kSessionGetInputName = 36,
  kSessionGetOutputName = 37,
  kCreateTensorWithDataAsOrtValue = 49,
  kGetTensorMutableData = 51,
  kCastTypeInfoToTensorInfo = 55,
  kGetOnnxTypeFromTypeInfo = 56,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetSymbolicDimensions = 63,
  kGetTensorTypeAndShape = 65,
  kCreateCpuMemoryInfo = 69,
  kAllocatorFree = 76,
  kGetAllocatorWithDefaultOptions = 78,
  kReleaseStatus = 93,
  kReleaseMemoryInfo = 94,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseTypeInfo = 98,
  kReleaseTensorTypeAndShapeInfo = 99,
  kReleaseSessionOptions = 100,
  kSessionGetModelMetadata = 111,
  kModelMetadataLookupCustomMetadataMap = 116,
  kReleaseModelMetadata = 118,
  kModelMetadataGetCustomMetadataMapKeys = 123,
  kAddSessionConfigEntry = 130,
};

/// The version of the table that is asked for: the oldest that has every entry above.
inline constexpr std::uint32_t kApiVersion = 11;

/// ONNXType of a type info that is a dense tensor.
inline constexpr int kTypeTensor = 1;

/// The loaded library and its table. One per process; the library is never unloaded.
class Api {
 public:
  /// Loads `libonnxruntime` from `path` at the first call; later calls return the same table, and
  /// throw if they name another file. Throws std::runtime_error with the loader's message.
  static const Api& load(const std::string& path);

  template <typename Function>
  Function entry(Entry place) const {
    return reinterpret_cast<Function>(table_[static_cast<std::size_t>(place)]);
  }

  /// Calls an entry that returns a status; throws std::runtime_error with its message on failure.
  template <typename... Args>
  void call(Entry place, Args... args) const {
    check(entry<Status* (*)(Args...)>(place)(args...));
  }

  /// Calls an entry that returns nothing.
  template <typename Object>
  void release(Entry place, Object* object) const {
    if (object != nullptr) entry<void (*)(Object*)>(place)(object);
  }

  void check(Status* status) const;
  const std::string& version() const { return version_; }
  void* environment() const { return environment_; }

 private:
  explicit Api(const std::string& path);

  std::string path_, version_;
  void* const* table_ = nullptr;
  void* environment_ = nullptr;
};

}  // namespace trtinfer::onnxruntime
