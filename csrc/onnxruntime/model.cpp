#include "onnxruntime/model.hpp"

#include <array>
#include <utility>

namespace trtinfer::onnxruntime {
namespace {

constexpr int kDeviceAllocator = 0;  // OrtDeviceAllocator
constexpr int kDefaultMemory = 0;    // OrtMemTypeDefault
constexpr int kSequentialExecution = 0;
constexpr int kLogFatal = 4;  // errors are thrown

std::shared_ptr<void> own(const Api& api, Entry release, void* object) {
  return {object, [&api, release](void* p) { api.release(release, p); }};
}

std::shared_ptr<void> make_options(const Api& api, const ModelOptions& options) {
  void* raw = nullptr;
  api.call(Entry::kCreateSessionOptions, &raw);
  std::shared_ptr<void> owned = own(api, Entry::kReleaseSessionOptions, raw);
  api.call(Entry::kSetSessionExecutionMode, raw, kSequentialExecution);
  api.call(Entry::kSetSessionLogSeverityLevel, raw, kLogFatal);
  api.call(Entry::kSetIntraOpNumThreads, raw, options.intra_op_threads);
  api.call(Entry::kSetInterOpNumThreads, raw, options.inter_op_threads);
  api.call(Entry::kSetSessionGraphOptimizationLevel, raw, options.graph_optimization_level);
  for (const auto& [key, value] : options.config) {
    api.call(Entry::kAddSessionConfigEntry, raw, key.c_str(), value.c_str());
  }
  return owned;
}

}  // namespace

Model::Model(const Api& api, const std::string& model, bool from_bytes, const ModelOptions& options)
    : api_(api) {
  const std::shared_ptr<void> session_options = make_options(api, options);
  void* raw = nullptr;
  if (from_bytes) {
    api.call(Entry::kCreateSessionFromArray, api.environment(),
             static_cast<const void*>(model.data()), model.size(), session_options.get(), &raw);
  } else {
    api.call(Entry::kCreateSession, api.environment(), model.c_str(), session_options.get(), &raw);
  }
  session_ = own(api, Entry::kReleaseSession, raw);
  void* memory_info = nullptr;
  api.call(Entry::kCreateCpuMemoryInfo, kDeviceAllocator, kDefaultMemory, &memory_info);
  memory_info_ = own(api, Entry::kReleaseMemoryInfo, memory_info);
  api.call(Entry::kGetAllocatorWithDefaultOptions, &allocator_);
  std::size_t count = 0;
  api.call(Entry::kSessionGetInputCount, raw, &count);
  for (std::size_t i = 0; i < count; ++i) {
    inputs_.push_back(describe(Entry::kSessionGetInputTypeInfo, Entry::kSessionGetInputName, i));
  }
  api.call(Entry::kSessionGetOutputCount, raw, &count);
  for (std::size_t i = 0; i < count; ++i) {
    outputs_.push_back(describe(Entry::kSessionGetOutputTypeInfo, Entry::kSessionGetOutputName, i));
  }
  for (const ValueInfo& info : inputs_) input_names_.push_back(info.name.c_str());
  for (const ValueInfo& info : outputs_) output_names_.push_back(info.name.c_str());
  read_metadata();
}

Model::~Model() = default;

std::string Model::take_string(char* text) const {
  std::string copy = text == nullptr ? "" : text;
  if (text != nullptr) {
    api_.call(Entry::kAllocatorFree, allocator_, static_cast<void*>(text));
  }
  return copy;
}

ValueInfo Model::describe(Entry type_entry, Entry name_entry, std::size_t index) const {
  ValueInfo info;
  char* name = nullptr;
  api_.call(name_entry, session_.get(), index, allocator_, &name);
  info.name = take_string(name);
  void* type_info = nullptr;
  api_.call(type_entry, session_.get(), index, &type_info);
  const std::shared_ptr<void> owned = own(api_, Entry::kReleaseTypeInfo, type_info);
  int kind = 0;
  api_.call(Entry::kGetOnnxTypeFromTypeInfo, type_info, &kind);
  info.is_tensor = kind == kTypeTensor;
  if (!info.is_tensor) return info;
  void* tensor_info = nullptr;  // borrowed from type_info
  api_.call(Entry::kCastTypeInfoToTensorInfo, type_info, &tensor_info);
  read_dimensions(tensor_info, info);
  return info;
}

void Model::read_dimensions(void* tensor_info, ValueInfo& info) const {
  int element_type = 0;
  api_.call(Entry::kGetTensorElementType, tensor_info, &element_type);
  info.element_type = element_type;
  std::size_t rank = 0;
  api_.call(Entry::kGetDimensionsCount, tensor_info, &rank);
  info.shape.resize(rank);
  api_.call(Entry::kGetDimensions, tensor_info, info.shape.data(), rank);
  std::vector<const char*> symbols(rank, nullptr);
  api_.call(Entry::kGetSymbolicDimensions, tensor_info, symbols.data(), rank);
  for (const char* symbol : symbols) info.symbols.emplace_back(symbol == nullptr ? "" : symbol);
}

void Model::read_metadata() {
  void* raw = nullptr;
  api_.call(Entry::kSessionGetModelMetadata, session_.get(), &raw);
  const std::shared_ptr<void> owned = own(api_, Entry::kReleaseModelMetadata, raw);
  char** keys = nullptr;
  std::int64_t count = 0;
  api_.call(Entry::kModelMetadataGetCustomMetadataMapKeys, raw, allocator_, &keys, &count);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string key = take_string(keys[i]);
    char* value = nullptr;
    api_.call(Entry::kModelMetadataLookupCustomMetadataMap, raw, allocator_, key.c_str(), &value);
    metadata_[key] = take_string(value);
  }
  if (keys != nullptr) api_.call(Entry::kAllocatorFree, allocator_, static_cast<void*>(keys));
}

std::shared_ptr<void> Model::wrap(const Value& value) const {
  static std::byte nothing;  // tensors without elements still need an address
  void* data = value.data == nullptr ? &nothing : value.data;
  void* tensor = nullptr;
  api_.call(Entry::kCreateTensorWithDataAsOrtValue, memory_info_.get(), data, value.bytes,
            value.shape.data(), value.shape.size(), static_cast<int>(value.element_type), &tensor);
  return own(api_, Entry::kReleaseValue, tensor);
}

void Model::inspect(Value& value) const {
  void* raw = nullptr;
  api_.call(Entry::kGetTensorTypeAndShape, value.owner.get(), &raw);
  const std::shared_ptr<void> owned = own(api_, Entry::kReleaseTensorTypeAndShapeInfo, raw);
  std::size_t rank = 0;
  api_.call(Entry::kGetDimensionsCount, raw, &rank);
  value.shape.resize(rank);
  api_.call(Entry::kGetDimensions, raw, value.shape.data(), rank);
  api_.call(Entry::kGetTensorMutableData, value.owner.get(), &value.data);
}

void Model::run(const std::vector<Value>& inputs, std::vector<Value>& outputs) const {
  std::vector<std::shared_ptr<void>> held;
  std::vector<void*> input_values, output_values(outputs.size(), nullptr);
  held.reserve(inputs.size() + outputs.size());
  input_values.reserve(inputs.size());
  for (const Value& input : inputs) {
    held.push_back(wrap(input));
    input_values.push_back(held.back().get());
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].data == nullptr) continue;
    held.push_back(wrap(outputs[i]));
    output_values[i] = held.back().get();
  }
  void* const no_run_options = nullptr;
  api_.call(Entry::kRun, session_.get(), no_run_options, input_names_.data(), input_values.data(),
            input_values.size(), output_names_.data(), output_names_.size(), output_values.data());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].data != nullptr) continue;
    outputs[i].owner = own(api_, Entry::kReleaseValue, output_values[i]);
    inspect(outputs[i]);
  }
}

}  // namespace trtinfer::onnxruntime
