#include "tensorrt/engine.hpp"

#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/memory.hpp"
#include "tensorrt/driver.hpp"
#include "tensorrt/error.hpp"
#include "tensorrt/handshake.hpp"

namespace trtinfer::tensorrt {
namespace {

constexpr std::int32_t kMaxTensors = 4096;
constexpr std::size_t kLeastRoom = 64 << 20;  // what a small engine may need beside its weights

/// Throws cuda::Error, naming a size, when the GPU is full or has failed: a refusal then says
/// nothing of the plan.
void require_room(std::size_t plan_bytes) {
  static_cast<void>(cuda::allocate_device(2 * plan_bytes + kLeastRoom));
}

void* deserialize(const Library& library, void* runtime, std::span<const std::byte> plan) {
  if (plan.empty()) throw Error("the plan is empty");
  if (!driver().usable) throw Error("a plan can only be opened on a GPU: " + driver().reason);
  const std::uint64_t mark = library.logger().mark();
  void* engine = library.abi().runtime.deserialize_engine(runtime, plan.data(), plan.size());
  if (engine == nullptr) {
    const std::string refusal =
        library.logger().explain("TensorRT " + library.version_text() + " refuses the plan of " +
                                     std::to_string(plan.size()) + " bytes",
                                 mark);
    require_room(plan.size());
    throw Error(refusal);
  }
  check_engine(library.abi(), engine);
  return engine;
}

}  // namespace

Shape to_shape(const Dims& dims) {
  if (dims.rank < 0 || dims.rank > static_cast<std::int32_t>(dims.sizes.size())) {
    throw Error("TensorRT gives a shape of " + std::to_string(dims.rank) + " dimensions");
  }
  return {dims.sizes.begin(), dims.sizes.begin() + dims.rank};
}

Dims to_dims(const Shape& shape) {
  Dims dims;
  if (shape.size() > dims.sizes.size()) {
    throw Error("a tensor of " + std::to_string(shape.size()) +
                " dimensions was given; TensorRT has at most 8");
  }
  dims.rank = static_cast<std::int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.sizes.begin());
  return dims;
}

std::string to_text(const Shape& shape) {
  std::string text = "(";
  for (std::int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

std::int32_t onnx_element_type(DataType type) {
  switch (type) {
    case DataType::kFloat:
      return 1;
    case DataType::kUint8:
      return 2;
    case DataType::kInt8:
      return 3;
    case DataType::kInt32:
      return 6;
    case DataType::kInt64:
      return 7;
    case DataType::kBool:
      return 9;
    case DataType::kHalf:
      return 10;
    case DataType::kBf16:
      return 16;
    case DataType::kFp8:
      return 17;
  }
  return 0;
}

Engine::Engine(const Library& library, std::span<const std::byte> plan)
    : library_(library),
      device_(cuda::current_device()),
      runtime_(library.create_runtime().release(), Destroy{device_}),
      engine_(deserialize(library, runtime_.get(), plan), Destroy{device_}) {
  const EngineMethods& call = library_.abi().engine;
  const char* name = call.get_name(engine_.get());
  name_ = name == nullptr ? "" : name;
  profile_count_ = call.profile_count(engine_.get());
  read_tensors();
}

void Engine::read_tensors() {
  const EngineMethods& call = library_.abi().engine;
  const std::int32_t count = call.io_count(engine_.get());
  if (count < 1 || count > kMaxTensors) {
    throw Error("the engine says that it has " + std::to_string(count) + " inputs and outputs");
  }
  for (std::int32_t i = 0; i < count; ++i) {
    const char* name = call.io_name(engine_.get(), i);
    if (name == nullptr) throw Error("the engine's tensor " + std::to_string(i) + " has no name");
    const IoMode mode = call.tensor_mode(engine_.get(), name);
    if (mode != IoMode::kInput && mode != IoMode::kOutput) {
      throw Error(std::string("the engine's tensor ") + name + " is neither input nor output");
    }
    if (call.tensor_format(engine_.get(), name) != Format::kLinear) {
      throw Error(std::string("the engine's tensor ") + name +
                  " is vectorized or has its channels last; build the plan with linear formats");
    }
    tensors_.push_back(
        {name, mode == IoMode::kInput, call.tensor_location(engine_.get(), name) == Location::kHost,
         call.tensor_dtype(engine_.get(), name), to_shape(call.tensor_shape(engine_.get(), name))});
  }
}

std::int64_t Engine::device_memory_size() const {
  return library_.abi().engine.device_memory_size(engine_.get());
}

ShapeRange Engine::profile_shapes(const std::string& input, std::int32_t profile) const {
  const bool known = std::any_of(tensors_.begin(), tensors_.end(), [&](const IoTensor& tensor) {
    return tensor.is_input && tensor.name == input;
  });
  if (!known) throw Error("the engine has no input named " + input);
  if (profile < 0 || profile >= profile_count_) {
    throw Error("the engine has " + std::to_string(profile_count_) + " profiles, no number " +
                std::to_string(profile));
  }
  const auto shape = [&](ProfileSelector selector) {
    return to_shape(
        library_.abi().engine.profile_shape(engine_.get(), input.c_str(), profile, selector));
  };
  return {shape(ProfileSelector::kMin), shape(ProfileSelector::kOpt), shape(ProfileSelector::kMax)};
}

}  // namespace trtinfer::tensorrt
