#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>

namespace trtinfer::tensorrt {

/// The binary interface of TensorRT's C++ API as data. Its classes are wrappers of two words: a
/// vtable that holds only destructors, and a pointer to the implementation, whose vtable holds the
/// methods in the order of their declaration. So a method is a slot number, and what differs from
/// release to release is the numbers in abi.cpp. tests/cpp/abi_check.cpp proves them against
/// NVIDIA's headers; nothing here needs a header.

/// Releases that share their slots and enum values.
enum class Family { kTensorRt10, kTensorRt11, kRtx1 };

const char* family_name(Family family);

/// The family of what getInferLibVersion() returns; none for a release that is not known.
std::optional<Family> family_of(int version);

enum class DataType : std::int32_t {
  kFloat = 0,
  kHalf = 1,
  kInt8 = 2,
  kInt32 = 3,
  kBool = 4,
  kUint8 = 5,
  kFp8 = 6,
  kBf16 = 7,
  kInt64 = 8,
};

enum class IoMode : std::int32_t { kNone = 0, kInput = 1, kOutput = 2 };
enum class Location : std::int32_t { kDevice = 0, kHost = 1 };
/// Every other one is a vectorized or channels-last layout.
enum class Format : std::int32_t { kLinear = 0 };
enum class ProfileSelector : std::int32_t { kMin = 0, kOpt = 1, kMax = 2 };
enum class MemoryPool : std::int32_t { kWorkspace = 0 };
enum class Severity : std::int32_t {
  kInternalError = 0,
  kError = 1,
  kWarning = 2,
  kInfo = 3,
  kVerbose = 4
};
/// Who allocates an execution context's device memory, and when.
enum class Allocation : std::int32_t { kStatic = 0, kOnProfileChange = 1, kUserManaged = 2 };
/// What TensorRT-RTX does when a shape has no specialized kernel yet.
enum class Specialization : std::int32_t { kLazy = 0, kEager = 1, kNone = 2 };
enum class GraphStrategy : std::int32_t { kDisabled = 0, kWholeGraph = 1 };

struct Dims {
  std::int32_t rank = 0;
  std::array<std::int64_t, 8> sizes{};
};
static_assert(sizeof(Dims) == 72);

/// Slot of a method that a release does not have.
inline constexpr int kAbsent = -1;

/// Bit of a flag that a release does not have.
inline constexpr int kNoFlag = -1;

/// A virtual method by its place in the vtable of the object itself.
template <typename Signature>
class DirectMethod;

template <typename Result, typename... Args>
class DirectMethod<Result(Args...)> {
 public:
  constexpr DirectMethod() = default;
  constexpr DirectMethod(int slot) : slot_(slot) {}  // NOLINT: the tables are lists of numbers

  constexpr int slot() const { return slot_; }
  constexpr bool exists() const { return slot_ != kAbsent; }

  Result operator()(void* object, Args... args) const {
    if (!exists()) throw std::logic_error("this release of TensorRT has no such method");
    void* const* vtable = *static_cast<void* const* const*>(object);
    return reinterpret_cast<Result (*)(void*, Args...)>(vtable[slot_])(object, args...);
  }

 private:
  int slot_ = kAbsent;
};

/// A method of an interface by its place in the vtable of the implementation behind it.
template <typename Signature>
class Method;

template <typename Result, typename... Args>
class Method<Result(Args...)> : public DirectMethod<Result(Args...)> {
 public:
  using DirectMethod<Result(Args...)>::DirectMethod;

  Result operator()(void* interface, Args... args) const {
    void* implementation = static_cast<void* const*>(interface)[1];
    return DirectMethod<Result(Args...)>::operator()(implementation, args...);
  }
};

struct RuntimeMethods {
  Method<void*()> get_self;
  Method<void*(const void*, std::size_t)> deserialize_engine;
  Method<void*()> get_logger;
  Method<bool(std::int32_t)> set_max_threads;
  Method<std::int32_t()> get_max_threads;
};

struct EngineMethods {
  Method<void*()> get_self;
  Method<std::int32_t()> layer_count;
  Method<void*(Allocation)> create_context;
  Method<std::int64_t()> device_memory_size;
  Method<const char*()> get_name;
  Method<std::int32_t()> profile_count;
  Method<Dims(const char*)> tensor_shape;
  Method<DataType(const char*)> tensor_dtype;
  Method<Location(const char*)> tensor_location;
  Method<IoMode(const char*)> tensor_mode;
  Method<Format(const char*)> tensor_format;
  Method<Dims(const char*, std::int32_t, ProfileSelector)> profile_shape;
  Method<std::int32_t()> io_count;
  Method<const char*(std::int32_t)> io_name;
  Method<void*(void*)> create_configured_context;
  Method<void*()> create_runtime_config;
};

struct ContextMethods {
  Method<void*()> get_self;
  Method<void(void*)> set_device_memory;
  Method<void(void*, std::int64_t)> set_sized_device_memory;
  Method<std::int32_t()> get_profile;
  Method<bool(std::int32_t, void*)> set_profile;
  Method<bool(const char*, const Dims*)> set_input_shape;
  Method<Dims(const char*)> tensor_shape;
  Method<bool(const char*, void*)> set_tensor_address;
  Method<std::int32_t(std::int32_t, const char**)> infer_shapes;
  Method<bool(void*)> set_input_consumed_event;
  Method<bool(void*)> enqueue;
  Method<std::size_t()> update_device_memory_size;
};

/// TensorRT-RTX only.
struct RuntimeConfigMethods {
  Method<void*()> get_self;
  Method<void(Allocation)> set_allocation;
  Method<void*()> create_cache;
  Method<bool(const void*)> set_cache;
  Method<void(Specialization)> set_specialization;
  Method<Specialization()> get_specialization;
  Method<bool(GraphStrategy)> set_graph_strategy;
};

/// TensorRT-RTX only.
struct RuntimeCacheMethods {
  Method<void*()> serialize;
  Method<bool(const void*, std::size_t)> deserialize;
};

struct BuilderMethods {
  Method<void*()> create_config;
  Method<void*(std::uint32_t)> create_network;
  Method<void*()> create_profile;
  Method<void*(void*, void*)> build;
  Method<void*()> get_logger;
  Method<bool(std::int32_t)> set_max_threads;
  Method<std::int32_t()> get_max_threads;
};

struct ConfigMethods {
  Method<void(std::int32_t)> set_flag;
  Method<void(std::int32_t)> clear_flag;
  Method<bool(std::int32_t)> get_flag;
  Method<std::int32_t(const void*)> add_profile;
  Method<void*(const void*, std::size_t)> create_timing_cache;
  Method<bool(const void*, bool)> set_timing_cache;
  Method<const void*()> get_timing_cache;
  Method<void(MemoryPool, std::size_t)> set_memory_limit;
  Method<std::size_t(MemoryPool)> get_memory_limit;
  Method<void(std::int32_t)> set_optimization_level;
  Method<std::int32_t()> get_optimization_level;
  Method<void(std::int32_t)>
      set_max_aux_streams;  // returns a bool in some releases, void in others
  Method<std::int32_t()> get_max_aux_streams;
  Method<void(void*)> set_progress_monitor;
  Method<bool(std::int32_t)> set_compute_capability_count;
  Method<std::int32_t()> get_compute_capability_count;
  Method<bool(std::int32_t, std::int32_t)> set_compute_capability;
};

struct NetworkMethods {
  Method<std::int32_t()> layer_count;
  Method<std::int32_t()> input_count;
  Method<void*(std::int32_t)> get_input;
  Method<std::int32_t()> output_count;
  Method<void*(std::int32_t)> get_output;
  Method<bool(std::int32_t)> get_flag;
};

struct TensorMethods {
  Method<const char*()> get_name;
  Method<Dims()> get_shape;
  Method<DataType()> get_dtype;
  Method<bool()> is_shape_tensor;
};

struct ProfileMethods {
  Method<bool(const char*, ProfileSelector, const Dims*)> set_shape;
  Method<bool()> is_valid;
};

struct HostMemoryMethods {
  Method<void*()> data;
  Method<std::size_t()> size;
};

struct TimingCacheMethods {
  Method<void*()> serialize;
};

/// IParser and IParserError have no implementation behind them.
struct ParserMethods {
  DirectMethod<bool(const void*, std::size_t, const char*)> parse;
  DirectMethod<bool(const char*, std::int32_t)> parse_file;
  DirectMethod<std::int32_t()> error_count;
  DirectMethod<void*(std::int32_t)> get_error;
  DirectMethod<void()> destroy;
};

struct ParserErrorMethods {
  DirectMethod<std::int32_t()> code;
  DirectMethod<const char*()> description;
  DirectMethod<std::int32_t()> node;
  DirectMethod<const char*()> node_name;
  DirectMethod<const char*()> node_operator;
};

/// BuilderFlag and NetworkDefinitionCreationFlag, as bit numbers.
struct Flags {
  int tf32 = kNoFlag, fp16 = kNoFlag, bf16 = kNoFlag, int8 = kNoFlag;
  int strongly_typed = kNoFlag;
};

/// Places in the vtables of the interfaces that we implement.
struct CallbackSlots {
  int log = 0;
  int phase_start = 0, step_complete = 0, phase_finish = 0;
};

struct Abi {
  Family family = Family::kTensorRt10;
  RuntimeMethods runtime;
  EngineMethods engine;
  ContextMethods context;
  RuntimeConfigMethods runtime_config;
  RuntimeCacheMethods runtime_cache;
  BuilderMethods builder;
  ConfigMethods config;
  NetworkMethods network;
  TensorMethods tensor;
  ProfileMethods profile;
  HostMemoryMethods host_memory;
  TimingCacheMethods timing_cache;
  ParserMethods parser;
  ParserErrorMethods parser_error;
  Flags flags;
  CallbackSlots callbacks;

  /// True where precision is what the network says and no flag can change it.
  bool only_strongly_typed() const { return flags.fp16 == kNoFlag; }
};

/// The table of one release; a method that it does not have yet is absent.
Abi abi_of(Family family, int version);

}  // namespace trtinfer::tensorrt
