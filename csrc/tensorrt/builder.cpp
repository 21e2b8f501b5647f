#include "tensorrt/builder.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "tensorrt/error.hpp"
#include "tensorrt/handshake.hpp"

namespace trtinfer::tensorrt {
namespace {

constexpr std::int32_t kMaxErrors = 10;

int precision_flag(const Flags& flags, Precision precision) {
  switch (precision) {
    case Precision::kFp16:
      return flags.fp16;
    case Precision::kBf16:
      return flags.bf16;
    case Precision::kInt8:
      return flags.int8;
    case Precision::kAsModel:
      break;
  }
  return kNoFlag;
}

Object create_network(const Library& library, void* builder, Precision precision) {
  const Abi& abi = library.abi();
  const std::uint64_t mark = library.logger().mark();
  // Releases that are always strongly typed refuse or ignore the flag.
  const bool say_typed = precision == Precision::kAsModel && !abi.only_strongly_typed();
  const std::uint32_t flags = say_typed ? 1U << abi.flags.strongly_typed : 0U;
  void* network = abi.builder.create_network(builder, flags);
  if (network == nullptr) throw Error(library.logger().explain("TensorRT gives no network", mark));
  check_network(abi, network);
  return Object(network);
}

std::string to_text(const char* text) { return text == nullptr ? "" : text; }

}  // namespace

Builder::Builder(const Library& library, Precision precision)
    : library_(library), precision_(precision) {
  if (precision != Precision::kAsModel && abi().only_strongly_typed()) {
    throw Error("TensorRT " + library.version_text() +
                " takes precision from the model only; convert the ONNX model");
  }
  builder_ = library.create_builder();
  network_ = create_network(library, builder_.get(), precision);
  parser_ = library.create_parser(network_.get());
}

void Builder::parse(std::span<const std::byte> model, const std::string& path) {
  const std::uint64_t mark = library_.logger().mark();
  const bool parsed = abi().parser.parse(parser_.get(), model.data(), model.size(),
                                         path.empty() ? nullptr : path.c_str());
  check_parsed(parsed, mark);
}

void Builder::parse_file(const std::string& path) {
  const std::uint64_t mark = library_.logger().mark();
  const auto verbosity = static_cast<std::int32_t>(Severity::kWarning);
  check_parsed(abi().parser.parse_file(parser_.get(), path.c_str(), verbosity), mark);
}

void Builder::check_parsed(bool parsed, std::uint64_t mark) const {
  const std::string what = "TensorRT " + library_.version_text() + " refuses the model";
  const std::vector<ParserError> errors = parser_errors();
  if (!errors.empty()) {
    std::string text = what;
    for (std::size_t i = 0; i < errors.size(); ++i) {
      text += (i == 0 ? ": " : "; ") + errors[i].where + errors[i].description;
    }
    // The log repeats each of them, and has what led to them: a file that is not there, say.
    for (const std::string& logged : library_.logger().errors_since(mark)) {
      const bool repeated =
          logged.find("While parsing node number") != std::string::npos ||
          logged.find(" node ---") != std::string::npos ||
          std::any_of(errors.begin(), errors.end(), [&](const ParserError& error) {
            return logged.find(error.description) != std::string::npos;
          });
      if (!repeated) text += "; " + logged;
    }
    throw Error(text);
  }
  if (!parsed) throw Error(library_.logger().explain(what, mark));
  // An empty file is parsed without complaint.
  if (abi().network.output_count(network_.get()) < 1) throw Error("the ONNX model has no outputs");
}

std::vector<Builder::ParserError> Builder::parser_errors() const {
  const std::int32_t count = abi().parser.error_count(parser_.get());
  const ParserErrorMethods& call = abi().parser_error;
  std::vector<ParserError> errors;
  errors.reserve(static_cast<std::size_t>(std::clamp(count, 0, kMaxErrors)) + 1);
  for (std::int32_t i = 0; i < std::min(count, kMaxErrors); ++i) {
    void* error = abi().parser.get_error(parser_.get(), i);
    if (error == nullptr) continue;
    const std::string operation = to_text(call.node_operator(error));
    const std::string name = to_text(call.node_name(error));
    std::string where;
    if (call.node(error) >= 0 && !operation.empty()) {
      where = "node " + std::to_string(call.node(error)) + " (" + operation +
              (name.empty() ? "" : " '" + name + "'") + "): ";
    }
    errors.push_back({std::move(where), to_text(call.description(error))});
  }
  if (count > kMaxErrors) {
    errors.push_back({"and ", std::to_string(count - kMaxErrors) + " more errors"});
  }
  return errors;
}

IoTensor Builder::describe(void* tensor, bool is_input) const {
  const TensorMethods& call = abi().tensor;
  return {to_text(call.get_name(tensor)), is_input, call.is_shape_tensor(tensor),
          call.get_dtype(tensor), to_shape(call.get_shape(tensor))};
}

std::vector<IoTensor> Builder::tensors() const {
  const NetworkMethods& call = abi().network;
  const std::int32_t inputs = call.input_count(network_.get());
  const std::int32_t outputs = call.output_count(network_.get());
  std::vector<IoTensor> result;
  result.reserve(static_cast<std::size_t>(inputs) + static_cast<std::size_t>(outputs));
  for (std::int32_t i = 0; i < inputs; ++i) {
    result.push_back(describe(call.get_input(network_.get(), i), true));
  }
  for (std::int32_t i = 0; i < outputs; ++i) {
    result.push_back(describe(call.get_output(network_.get(), i), false));
  }
  return result;
}

std::int32_t Builder::layer_count() const { return abi().network.layer_count(network_.get()); }

BuildResult Builder::build(const BuildOptions& options) const {
  const Object config = create_config(options);
  const Object timing_cache = add_timing_cache(config.get(), options);
  ProgressMonitor monitor(options.progress);
  if (options.progress) abi().config.set_progress_monitor(config.get(), monitor.interface());
  const std::uint64_t mark = library_.logger().mark();
  Object plan(abi().builder.build(builder_.get(), network_.get(), config.get()));
  monitor.rethrow();
  if (plan == nullptr && monitor.stopped()) throw Error("the build was stopped");
  if (plan == nullptr) {
    throw Error(library_.logger().explain(
        "TensorRT " + library_.version_text() + " cannot build a plan", mark));
  }
  return {HostMemory(abi(), std::move(plan)), timing_cache_of(config.get())};
}

Object Builder::create_config(const BuildOptions& options) const {
  const ConfigMethods& call = abi().config;
  Object config(abi().builder.create_config(builder_.get()));
  if (config == nullptr) throw Error("TensorRT gives no builder configuration");
  check_config(abi(), config.get());
  if (options.workspace_bytes > 0) {
    call.set_memory_limit(config.get(), MemoryPool::kWorkspace, options.workspace_bytes);
  }
  if (options.optimization_level >= 0) {
    call.set_optimization_level(config.get(), options.optimization_level);
  }
  if (options.max_aux_streams >= 0) {
    call.set_max_aux_streams(config.get(), options.max_aux_streams);
  }
  if (!options.tf32) call.clear_flag(config.get(), abi().flags.tf32);
  const int flag = precision_flag(abi().flags, precision_);
  if (flag != kNoFlag) call.set_flag(config.get(), flag);
  set_target(config.get(), options);
  add_profile(config.get(), options);
  return config;
}

void Builder::set_target(void* config, const BuildOptions& options) const {
  const std::vector<int>& targets = options.compute_capabilities;
  if (targets.empty()) return;
  const ConfigMethods& call = abi().config;
  if (!call.set_compute_capability.exists()) {
    throw Error("TensorRT " + library_.version_text() +
                " builds for the GPU at hand only; a target can be given to TensorRT-RTX");
  }
  const std::uint64_t mark = library_.logger().mark();
  bool done = call.set_compute_capability_count(config, static_cast<std::int32_t>(targets.size()));
  for (std::size_t i = 0; done && i < targets.size(); ++i) {
    done = call.set_compute_capability(config, targets[i], static_cast<std::int32_t>(i));
    if (done) continue;
    throw Error(library_.logger().explain("compute capability " + std::to_string(targets[i] / 10) +
                                              "." + std::to_string(targets[i] % 10) +
                                              " is no target of TensorRT-RTX " +
                                              library_.version_text(),
                                          mark));
  }
  if (!done) {
    throw Error(library_.logger().explain(
        std::to_string(targets.size()) + " compute capabilities are refused", mark));
  }
}

void Builder::check_shapes(const BuildOptions& options) const {
  std::set<std::string> inputs;
  for (const IoTensor& tensor : tensors()) {
    if (!tensor.is_input) continue;
    inputs.insert(tensor.name);
    const bool open = std::count(tensor.shape.begin(), tensor.shape.end(), -1) > 0;
    if (open && options.shapes.count(tensor.name) == 0) {
      throw Error("input " + tensor.name + " has open dimensions, but its shapes are not given");
    }
  }
  for (const auto& [name, range] : options.shapes) {
    if (inputs.count(name) == 0) throw Error("the model has no input named " + name);
  }
}

void Builder::add_profile(void* config, const BuildOptions& options) const {
  check_shapes(options);
  if (options.shapes.empty()) return;
  const ProfileMethods& call = abi().profile;
  const std::uint64_t mark = library_.logger().mark();
  void* profile = abi().builder.create_profile(builder_.get());  // the builder owns it
  if (profile == nullptr) throw Error("TensorRT gives no optimization profile");
  for (const auto& [name, range] : options.shapes) {
    const Dims min = to_dims(range.min), opt = to_dims(range.opt), max = to_dims(range.max);
    if (!call.set_shape(profile, name.c_str(), ProfileSelector::kMin, &min) ||
        !call.set_shape(profile, name.c_str(), ProfileSelector::kOpt, &opt) ||
        !call.set_shape(profile, name.c_str(), ProfileSelector::kMax, &max)) {
      throw Error(library_.logger().explain("the shapes of input " + name + " are refused", mark));
    }
  }
  if (!call.is_valid(profile) || abi().config.add_profile(config, profile) < 0) {
    throw Error(library_.logger().explain("the inputs' shapes are refused", mark));
  }
}

Object Builder::add_timing_cache(void* config, const BuildOptions& options) const {
  const std::span<const std::byte> bytes = options.timing_cache;
  Object cache(abi().config.create_timing_cache(config, bytes.data(), bytes.size()));
  // A cache of another GPU or release is no reason to fail; the build then starts an own one.
  if (cache != nullptr) abi().config.set_timing_cache(config, cache.get(), false);
  return cache;
}

std::optional<HostMemory> Builder::timing_cache_of(void* config) const {
  void* cache = const_cast<void*>(abi().config.get_timing_cache(config));
  if (cache == nullptr) return std::nullopt;
  void* memory = abi().timing_cache.serialize(cache);
  if (memory == nullptr) return std::nullopt;
  return HostMemory(abi(), Object(memory));
}

}  // namespace trtinfer::tensorrt
