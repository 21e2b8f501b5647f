#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "onnxruntime/api.hpp"

namespace trtinfer::onnxruntime {

/// How a session is opened; 0 threads leaves the choice to ONNX Runtime.
struct ModelOptions {
  int intra_op_threads = 0;
  int inter_op_threads = 1;
  int graph_optimization_level = 99;          ///< 0 none, 1 basic, 2 extended, 99 all
  std::map<std::string, std::string> config;  ///< session configuration entries, by their ORT names
};

/// What the model says of an input or output: -1 and a name (or "") for a dimension that varies.
struct ValueInfo {
  std::string name;
  bool is_tensor = false;
  std::int32_t element_type = 0;  ///< 0 when it is no tensor
  std::vector<std::int64_t> shape;
  std::vector<std::string> symbols;  ///< the name of each dimension, "" for fixed or unnamed ones
};

/// A tensor handed to a run, or got back. `owner` holds what ONNX Runtime allocated.
struct Value {
  void* data = nullptr;
  std::size_t bytes = 0;
  std::int32_t element_type = 0;
  std::vector<std::int64_t> shape;
  std::shared_ptr<void> owner;
};

/// An open ONNX Runtime session on the CPU. `run` may be called by many threads at once.
class Model {
 public:
  /// `model` is a path, or the serialized bytes when `from_bytes`.
  Model(const Api& api, const std::string& model, bool from_bytes, const ModelOptions& options);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const std::vector<ValueInfo>& inputs() const { return inputs_; }
  const std::vector<ValueInfo>& outputs() const { return outputs_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// Runs on `inputs`, in the model's order. An output with data is written there (its shape must
  /// be the real one); the others are allocated by ONNX Runtime and described. Throws
  /// std::runtime_error.
  void run(const std::vector<Value>& inputs, std::vector<Value>& outputs) const;

 private:
  ValueInfo describe(Entry type_entry, Entry name_entry, std::size_t index) const;
  void read_dimensions(void* tensor_info, ValueInfo& info) const;
  void read_metadata();
  std::string take_string(char* text) const;
  std::shared_ptr<void> wrap(const Value& value) const;
  void inspect(Value& value) const;

  const Api& api_;
  void* allocator_ = nullptr;
  std::shared_ptr<void> memory_info_, session_;
  std::vector<ValueInfo> inputs_, outputs_;
  std::vector<const char*> input_names_, output_names_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace trtinfer::onnxruntime
