// Compares every slot, signature and enum value of csrc/tensorrt/abi.cpp with NVIDIA's headers. Not
// part of the test run, since the headers cannot be shipped:
//   g++ -std=c++20 -Icsrc -I/usr/local/cuda/include -isystem DIR tests/cpp/abi_check.cpp \
//     csrc/tensorrt/abi.cpp -o abi_check && ./abi_check
// where DIR holds NvInfer.h and NvOnnxParser.h of the release, or through CMake:
//   cmake -DTRTINFER_TESTS=ON -DTENSORRT_INCLUDE=DIR ...
#include <NvInfer.h>
#include <NvInferImpl.h>
#include <NvOnnxParser.h>

#include <cstdio>
#include <cstring>
#include <type_traits>

#include "tensorrt/abi.hpp"

namespace nvinfer1::apiv {
class VRuntimeConfig;  // not in every release
class VRuntimeCache;
}  // namespace nvinfer1::apiv

namespace nvinfer1 {
enum class ComputeCapability : std::int32_t;
enum class DynamicShapesKernelSpecializationStrategy : std::int32_t;
enum class CudaGraphStrategy : std::int32_t;
}  // namespace nvinfer1

namespace {

using namespace trtinfer::tensorrt;
using namespace nvinfer1::apiv;

int checked = 0, failed = 0;

void expect(const char* what, long ours, long theirs) {
  ++checked;
  if (ours == theirs) return;
  ++failed;
  std::printf("  %s: ours %ld, header %ld\n", what, ours, theirs);
}

template <typename... Types>
struct List {};

template <typename Member>
struct Function;
template <typename C, typename R, typename... A>
struct Function<R (C::*)(A...)> {
  using Result = R;
  using Arguments = List<A...>;
};
template <typename C, typename R, typename... A>
struct Function<R (C::*)(A...) const> : Function<R (C::*)(A...)> {};
template <typename C, typename R, typename... A>
struct Function<R (C::*)(A...) noexcept> : Function<R (C::*)(A...)> {};
template <typename C, typename R, typename... A>
struct Function<R (C::*)(A...) const noexcept> : Function<R (C::*)(A...)> {};

/// References travel as pointers; what counts is the size and the kind of register.
template <typename Type>
using Passed = std::conditional_t<std::is_reference_v<Type>, void*, Type>;

template <typename Ours, typename Theirs>
constexpr bool alike() {
  using A = Passed<Ours>;
  using B = Passed<Theirs>;
  if constexpr (std::is_void_v<A> || std::is_void_v<B>) {
    return std::is_void_v<A> == std::is_void_v<B>;
  } else {
    return sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B> &&
           std::is_floating_point_v<A> == std::is_floating_point_v<B> &&
           std::is_class_v<A> == std::is_class_v<B>;
  }
}

template <typename... A, typename... B>
constexpr bool all_alike(List<A...>, List<B...>) {
  if constexpr (sizeof...(A) != sizeof...(B)) {
    return false;
  } else {
    return (alike<A, B>() && ...);
  }
}

template <typename R, typename... A, typename Member>
void check_signature(const char* what, DirectMethod<R(A...)>, Member) {
  using Theirs = Function<Member>;
  // A result that we never read may be there or not.
  const bool same = (std::is_void_v<R> || alike<R, typename Theirs::Result>()) &&
                    all_alike(List<A...>{}, typename Theirs::Arguments{});
  ++checked;
  if (same) return;
  ++failed;
  std::printf("  %s: another signature\n", what);
}

/// The Itanium C++ ABI keeps a virtual function's place in the pointer to the member: one more than
/// its offset in bytes, or on Arm the offset itself.
template <typename Member>
int slot_of(Member member) {
  std::ptrdiff_t words[2];
  static_assert(sizeof member == sizeof words);
  std::memcpy(words, &member, sizeof words);
#ifdef __aarch64__
  return static_cast<int>(words[0] / static_cast<std::ptrdiff_t>(sizeof(void*)));
#else
  return static_cast<int>((words[0] - 1) / static_cast<std::ptrdiff_t>(sizeof(void*)));
#endif
}

template <typename Ours, typename Member>
void check_member(const char* what, Ours ours, Member member) {
  expect(what, ours.slot(), slot_of(member));
  check_signature(what, ours, member);
}

template <typename Class>
concept Complete = requires { sizeof(Class); };

// A method that the header lacks must be absent in the table; a class that it lacks is not checked.
#define CHECK_METHOD(ours, Class, name)                                       \
  [&]<typename C>(C*) {                                                       \
    if constexpr (requires { &C::name; }) {                                   \
      check_member(#Class "::" #name, ours, &C::name);                        \
    } else if constexpr (Complete<C>) {                                       \
      expect(#Class "::" #name " (not in the header)", ours.slot(), kAbsent); \
    }                                                                         \
  }(static_cast<Class*>(nullptr))

#define CHECK_VALUE(ours, Enum, name)                                                    \
  [&]<typename E>(E) {                                                                   \
    if constexpr (requires { E::name; }) {                                               \
      expect(#Enum "::" #name, static_cast<long>(ours), static_cast<long>(E::name));     \
    } else {                                                                             \
      expect(#Enum "::" #name " (not in the header)", static_cast<long>(ours), kNoFlag); \
    }                                                                                    \
  }(nvinfer1::Enum{})

// For an enum that only some releases have, with the same values in all of those.
#define CHECK_IF_KNOWN(ours, Enum, name)                                             \
  [&]<typename E>(E) {                                                               \
    if constexpr (requires { E::name; })                                             \
      expect(#Enum "::" #name, static_cast<long>(ours), static_cast<long>(E::name)); \
  }(nvinfer1::Enum{})

void check_runtime(const Abi& abi) {
  const RuntimeMethods& ours = abi.runtime;
  using Deserialize = nvinfer1::ICudaEngine* (VRuntime::*)(void const*, std::size_t) noexcept;
  check_member("VRuntime::deserializeCudaEngine", ours.deserialize_engine,
               static_cast<Deserialize>(&VRuntime::deserializeCudaEngine));
  CHECK_METHOD(ours.get_self, VRuntime, getPImpl);
  CHECK_METHOD(ours.get_logger, VRuntime, getLogger);
  CHECK_METHOD(ours.set_max_threads, VRuntime, setMaxThreads);
  CHECK_METHOD(ours.get_max_threads, VRuntime, getMaxThreads);
}

void check_device_memory_size(const EngineMethods& ours) {
  [&]<typename C>(C*) {
    if constexpr (requires { &C::getDeviceMemorySizeV2; }) {
      check_member("VCudaEngine::getDeviceMemorySizeV2", ours.device_memory_size,
                   &C::getDeviceMemorySizeV2);
    } else {
      check_member("VCudaEngine::getDeviceMemorySize", ours.device_memory_size,
                   &C::getDeviceMemorySize);
    }
  }(static_cast<VCudaEngine*>(nullptr));
}

void check_engine(const Abi& abi) {
  const EngineMethods& ours = abi.engine;
  check_device_memory_size(ours);
  CHECK_METHOD(ours.get_self, VCudaEngine, getPImpl);
  CHECK_METHOD(ours.layer_count, VCudaEngine, getNbLayers);
  CHECK_METHOD(ours.create_context, VCudaEngine, createExecutionContext);
  CHECK_METHOD(ours.get_name, VCudaEngine, getName);
  CHECK_METHOD(ours.profile_count, VCudaEngine, getNbOptimizationProfiles);
  CHECK_METHOD(ours.tensor_shape, VCudaEngine, getTensorShape);
  CHECK_METHOD(ours.tensor_dtype, VCudaEngine, getTensorDataType);
  CHECK_METHOD(ours.tensor_location, VCudaEngine, getTensorLocation);
  CHECK_METHOD(ours.tensor_mode, VCudaEngine, getTensorIOMode);
  CHECK_METHOD(ours.tensor_format, VCudaEngine, getTensorFormat);
  CHECK_METHOD(ours.profile_shape, VCudaEngine, getProfileShape);
  CHECK_METHOD(ours.io_count, VCudaEngine, getNbIOTensors);
  CHECK_METHOD(ours.io_name, VCudaEngine, getIOTensorName);
  CHECK_METHOD(ours.create_configured_context, VCudaEngine,
               createExecutionContextWithRuntimeConfig);
  CHECK_METHOD(ours.create_runtime_config, VCudaEngine, createRuntimeConfig);
}

void check_context(const Abi& abi) {
  const ContextMethods& ours = abi.context;
  CHECK_METHOD(ours.get_self, VExecutionContext, getPImpl);
  CHECK_METHOD(ours.set_device_memory, VExecutionContext, setDeviceMemory);
  CHECK_METHOD(ours.set_sized_device_memory, VExecutionContext, setDeviceMemoryV2);
  CHECK_METHOD(ours.get_profile, VExecutionContext, getOptimizationProfile);
  CHECK_METHOD(ours.set_profile, VExecutionContext, setOptimizationProfileAsync);
  CHECK_METHOD(ours.set_input_shape, VExecutionContext, setInputShape);
  CHECK_METHOD(ours.tensor_shape, VExecutionContext, getTensorShape);
  CHECK_METHOD(ours.set_tensor_address, VExecutionContext, setTensorAddress);
  CHECK_METHOD(ours.infer_shapes, VExecutionContext, inferShapes);
  CHECK_METHOD(ours.set_input_consumed_event, VExecutionContext, setInputConsumedEvent);
  CHECK_METHOD(ours.enqueue, VExecutionContext, enqueueV3);
  CHECK_METHOD(ours.update_device_memory_size, VExecutionContext, updateDeviceMemorySizeForShapes);
}

void check_runtime_config(const Abi& abi) {
  const RuntimeConfigMethods& ours = abi.runtime_config;
  CHECK_METHOD(ours.get_self, VRuntimeConfig, getPImpl);
  CHECK_METHOD(ours.set_allocation, VRuntimeConfig, setExecutionContextAllocationStrategy);
  CHECK_METHOD(ours.create_cache, VRuntimeConfig, createRuntimeCache);
  CHECK_METHOD(ours.set_cache, VRuntimeConfig, setRuntimeCache);
  CHECK_METHOD(ours.set_specialization, VRuntimeConfig,
               setDynamicShapesKernelSpecializationStrategy);
  CHECK_METHOD(ours.get_specialization, VRuntimeConfig,
               getDynamicShapesKernelSpecializationStrategy);
  CHECK_METHOD(ours.set_graph_strategy, VRuntimeConfig, setCudaGraphStrategy);
  CHECK_METHOD(abi.runtime_cache.serialize, VRuntimeCache, serialize);
  CHECK_METHOD(abi.runtime_cache.deserialize, VRuntimeCache, deserialize);
}

void check_builder(const Abi& abi) {
  const BuilderMethods& ours = abi.builder;
  CHECK_METHOD(ours.create_config, VBuilder, createBuilderConfig);
  CHECK_METHOD(ours.create_network, VBuilder, createNetworkV2);
  CHECK_METHOD(ours.create_profile, VBuilder, createOptimizationProfile);
  CHECK_METHOD(ours.build, VBuilder, buildSerializedNetwork);
  CHECK_METHOD(ours.get_logger, VBuilder, getLogger);
  CHECK_METHOD(ours.set_max_threads, VBuilder, setMaxThreads);
  CHECK_METHOD(ours.get_max_threads, VBuilder, getMaxThreads);
}

void check_config(const Abi& abi) {
  const ConfigMethods& ours = abi.config;
  CHECK_METHOD(ours.set_flag, VBuilderConfig, setFlag);
  CHECK_METHOD(ours.clear_flag, VBuilderConfig, clearFlag);
  CHECK_METHOD(ours.get_flag, VBuilderConfig, getFlag);
  CHECK_METHOD(ours.add_profile, VBuilderConfig, addOptimizationProfile);
  CHECK_METHOD(ours.create_timing_cache, VBuilderConfig, createTimingCache);
  CHECK_METHOD(ours.set_timing_cache, VBuilderConfig, setTimingCache);
  CHECK_METHOD(ours.get_timing_cache, VBuilderConfig, getTimingCache);
  CHECK_METHOD(ours.set_memory_limit, VBuilderConfig, setMemoryPoolLimit);
  CHECK_METHOD(ours.get_memory_limit, VBuilderConfig, getMemoryPoolLimit);
  CHECK_METHOD(ours.set_optimization_level, VBuilderConfig, setBuilderOptimizationLevel);
  CHECK_METHOD(ours.get_optimization_level, VBuilderConfig, getBuilderOptimizationLevel);
  CHECK_METHOD(ours.set_max_aux_streams, VBuilderConfig, setMaxAuxStreams);
  CHECK_METHOD(ours.get_max_aux_streams, VBuilderConfig, getMaxAuxStreams);
  CHECK_METHOD(ours.set_progress_monitor, VBuilderConfig, setProgressMonitor);
  CHECK_METHOD(ours.set_compute_capability_count, VBuilderConfig, setNbComputeCapabilities);
  CHECK_METHOD(ours.get_compute_capability_count, VBuilderConfig, getNbComputeCapabilities);
  CHECK_METHOD(ours.set_compute_capability, VBuilderConfig, setComputeCapability);
}

void check_network(const Abi& abi) {
  const NetworkMethods& ours = abi.network;
  CHECK_METHOD(ours.layer_count, VNetworkDefinition, getNbLayers);
  CHECK_METHOD(ours.input_count, VNetworkDefinition, getNbInputs);
  CHECK_METHOD(ours.get_input, VNetworkDefinition, getInput);
  CHECK_METHOD(ours.output_count, VNetworkDefinition, getNbOutputs);
  CHECK_METHOD(ours.get_output, VNetworkDefinition, getOutput);
  CHECK_METHOD(ours.get_flag, VNetworkDefinition, getFlag);
  CHECK_METHOD(abi.tensor.get_name, VTensor, getName);
  CHECK_METHOD(abi.tensor.get_shape, VTensor, getDimensions);
  CHECK_METHOD(abi.tensor.get_dtype, VTensor, getType);
  CHECK_METHOD(abi.tensor.is_shape_tensor, VTensor, isShapeTensor);
  CHECK_METHOD(abi.profile.set_shape, VOptimizationProfile, setDimensions);
  CHECK_METHOD(abi.profile.is_valid, VOptimizationProfile, isValid);
  CHECK_METHOD(abi.host_memory.data, VHostMemory, data);
  CHECK_METHOD(abi.host_memory.size, VHostMemory, size);
  CHECK_METHOD(abi.timing_cache.serialize, VTimingCache, serialize);
}

void check_parser(const Abi& abi) {
  using nvonnxparser::IParser;
  using nvonnxparser::IParserError;
  CHECK_METHOD(abi.parser.parse, IParser, parse);
  CHECK_METHOD(abi.parser.parse_file, IParser, parseFromFile);
  CHECK_METHOD(abi.parser.error_count, IParser, getNbErrors);
  CHECK_METHOD(abi.parser.get_error, IParser, getError);
  // No pointer to a destructor can be had; the one that also frees is the second after clearErrors.
  expect("IParser's destructor", abi.parser.destroy.slot(), slot_of(&IParser::clearErrors) + 2);
  CHECK_METHOD(abi.parser_error.code, IParserError, code);
  CHECK_METHOD(abi.parser_error.description, IParserError, desc);
  CHECK_METHOD(abi.parser_error.node, IParserError, node);
  CHECK_METHOD(abi.parser_error.node_name, IParserError, nodeName);
  CHECK_METHOD(abi.parser_error.node_operator, IParserError, nodeOperator);
}

void check_callbacks(const Abi& abi) {
  using nvinfer1::ILogger;
  using nvinfer1::IProgressMonitor;
  expect("ILogger::log", abi.callbacks.log, slot_of(&ILogger::log));
  expect("IProgressMonitor::phaseStart", abi.callbacks.phase_start,
         slot_of(&IProgressMonitor::phaseStart));
  expect("IProgressMonitor::stepComplete", abi.callbacks.step_complete,
         slot_of(&IProgressMonitor::stepComplete));
  expect("IProgressMonitor::phaseFinish", abi.callbacks.phase_finish,
         slot_of(&IProgressMonitor::phaseFinish));
  expect("IProgressMonitor::getAPILanguage", 0, slot_of(&IProgressMonitor::getAPILanguage));
  expect("IProgressMonitor::getInterfaceInfo", 1, slot_of(&IProgressMonitor::getInterfaceInfo));
  expect("sizeof InterfaceInfo", 16, sizeof(nvinfer1::InterfaceInfo));
}

void check_flags(const Abi& abi) {
  CHECK_VALUE(abi.flags.tf32, BuilderFlag, kTF32);
  CHECK_VALUE(abi.flags.fp16, BuilderFlag, kFP16);
  CHECK_VALUE(abi.flags.bf16, BuilderFlag, kBF16);
  CHECK_VALUE(abi.flags.int8, BuilderFlag, kINT8);
  CHECK_VALUE(abi.flags.strongly_typed, NetworkDefinitionCreationFlag, kSTRONGLY_TYPED);
}

void check_enums() {
  CHECK_VALUE(DataType::kFloat, DataType, kFLOAT);
  CHECK_VALUE(DataType::kHalf, DataType, kHALF);
  CHECK_VALUE(DataType::kInt8, DataType, kINT8);
  CHECK_VALUE(DataType::kInt32, DataType, kINT32);
  CHECK_VALUE(DataType::kBool, DataType, kBOOL);
  CHECK_VALUE(DataType::kUint8, DataType, kUINT8);
  CHECK_VALUE(DataType::kFp8, DataType, kFP8);
  CHECK_VALUE(DataType::kBf16, DataType, kBF16);
  CHECK_VALUE(DataType::kInt64, DataType, kINT64);
  CHECK_VALUE(IoMode::kNone, TensorIOMode, kNONE);
  CHECK_VALUE(IoMode::kInput, TensorIOMode, kINPUT);
  CHECK_VALUE(IoMode::kOutput, TensorIOMode, kOUTPUT);
  CHECK_VALUE(Location::kDevice, TensorLocation, kDEVICE);
  CHECK_VALUE(Location::kHost, TensorLocation, kHOST);
  CHECK_VALUE(Format::kLinear, TensorFormat, kLINEAR);
  CHECK_VALUE(ProfileSelector::kMin, OptProfileSelector, kMIN);
  CHECK_VALUE(ProfileSelector::kOpt, OptProfileSelector, kOPT);
  CHECK_VALUE(ProfileSelector::kMax, OptProfileSelector, kMAX);
  CHECK_VALUE(MemoryPool::kWorkspace, MemoryPoolType, kWORKSPACE);
  CHECK_VALUE(Severity::kInternalError, ILogger::Severity, kINTERNAL_ERROR);
  CHECK_VALUE(Severity::kError, ILogger::Severity, kERROR);
  CHECK_VALUE(Severity::kWarning, ILogger::Severity, kWARNING);
  CHECK_VALUE(Severity::kInfo, ILogger::Severity, kINFO);
  CHECK_VALUE(Severity::kVerbose, ILogger::Severity, kVERBOSE);
  CHECK_VALUE(Allocation::kStatic, ExecutionContextAllocationStrategy, kSTATIC);
  CHECK_VALUE(Allocation::kOnProfileChange, ExecutionContextAllocationStrategy, kON_PROFILE_CHANGE);
  CHECK_VALUE(Allocation::kUserManaged, ExecutionContextAllocationStrategy, kUSER_MANAGED);
}

void check_rtx_enums() {
  CHECK_IF_KNOWN(Specialization::kLazy, DynamicShapesKernelSpecializationStrategy, kLAZY);
  CHECK_IF_KNOWN(Specialization::kEager, DynamicShapesKernelSpecializationStrategy, kEAGER);
  CHECK_IF_KNOWN(Specialization::kNone, DynamicShapesKernelSpecializationStrategy, kNONE);
  CHECK_IF_KNOWN(GraphStrategy::kDisabled, CudaGraphStrategy, kDISABLED);
  CHECK_IF_KNOWN(GraphStrategy::kWholeGraph, CudaGraphStrategy, kWHOLE_GRAPH_CAPTURE);
  // setComputeCapability takes the capability as a number, 89 for 8.9.
  CHECK_IF_KNOWN(75, ComputeCapability, kSM75);
  CHECK_IF_KNOWN(89, ComputeCapability, kSM89);
  CHECK_IF_KNOWN(120, ComputeCapability, kSM120);
}

}  // namespace

int main() {
  const int version = NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
  const auto family = family_of(version);
  if (!family) {
    std::printf("version %d: no family\n", version);
    return 1;
  }
  const Abi abi = abi_of(*family, version);
  check_runtime(abi);
  check_engine(abi);
  check_context(abi);
  check_runtime_config(abi);
  check_builder(abi);
  check_config(abi);
  check_network(abi);
  check_parser(abi);
  check_callbacks(abi);
  check_flags(abi);
  check_enums();
  check_rtx_enums();
  expect("sizeof Dims", sizeof(Dims), sizeof(nvinfer1::Dims));
  std::printf("%d.%d.%d (%s): %d facts checked, %d wrong\n", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR,
              NV_TENSORRT_PATCH, family_name(*family), checked, failed);
  return failed == 0 ? 0 : 1;
}
