#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tensorrt/engine.hpp"
#include "tensorrt/host_memory.hpp"
#include "tensorrt/library.hpp"
#include "tensorrt/object.hpp"
#include "tensorrt/progress_monitor.hpp"

namespace trtinfer::tensorrt {

/// What the numbers of a network are computed in. Only TensorRT 10 can choose by itself; for other
/// releases the ONNX model has to be converted before, and kAsModel is all there is.
enum class Precision { kAsModel, kFp16, kBf16, kInt8 };

struct BuildOptions {
  /// For every input with an open dimension; min = opt = max gives a static plan.
  std::map<std::string, ShapeRange> shapes;
  bool tf32 = false;                // fp32 products rounded to 10 bits, which is faster
  std::size_t workspace_bytes = 0;  // limit of scratch memory; 0: the library's own
  int optimization_level = -1;      // 0 to 5; -1: the library's own
  int max_aux_streams = -1;         // -1: the library's own
  /// TensorRT-RTX only: the GPUs to build for, as 89 for 8.9; none: what the release supports.
  std::vector<int> compute_capabilities;
  /// What an earlier build gave, for TensorRT to time fewer kernels; may be empty.
  std::span<const std::byte> timing_cache;
  ProgressCallback progress;
};

struct BuildResult {
  HostMemory plan;
  std::optional<HostMemory> timing_cache;
};

/// An ONNX model as TensorRT parsed it, and the builder that makes plans of it. For one thread at a
/// time. Works without a GPU where the library does, as TensorRT-RTX.
class Builder {
 public:
  explicit Builder(const Library& library, Precision precision = Precision::kAsModel);

  /// Parses a serialized model; `path` is where files with external weights are looked for beside,
  /// empty for none. Throws Error with every node that TensorRT does not take. Once only.
  void parse(std::span<const std::byte> model, const std::string& path);
  /// The same from a file.
  void parse_file(const std::string& path);

  /// Inputs and outputs of the parsed model; open dimensions are -1.
  std::vector<IoTensor> tensors() const;
  std::int32_t layer_count() const;

  /// Makes a plan; may be called again with other options.
  BuildResult build(const BuildOptions& options) const;

 private:
  struct ParserError {
    std::string where;  // "node 3 (Conv 'name'): ", or nothing
    std::string description;
  };

  Object create_config(const BuildOptions& options) const;
  void set_target(void* config, const BuildOptions& options) const;
  void check_shapes(const BuildOptions& options) const;
  void add_profile(void* config, const BuildOptions& options) const;
  Object add_timing_cache(void* config, const BuildOptions& options) const;
  std::optional<HostMemory> timing_cache_of(void* config) const;
  void check_parsed(bool parsed, std::uint64_t mark) const;
  std::vector<ParserError> parser_errors() const;
  IoTensor describe(void* tensor, bool is_input) const;
  const Abi& abi() const { return library_.abi(); }

  const Library& library_;
  Precision precision_;
  Object builder_;
  Object network_;
  ParserObject parser_;  // holds the weights of the network
};

}  // namespace trtinfer::tensorrt
