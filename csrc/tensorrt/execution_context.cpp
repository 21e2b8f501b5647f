#include "tensorrt/execution_context.hpp"

#include <utility>

#include "tensorrt/error.hpp"
#include "tensorrt/handshake.hpp"

namespace trtinfer::tensorrt {
namespace {

Object create_config(const Engine& engine, const ContextOptions& options) {
  const Library& library = engine.library();
  if (!library.is_rtx()) return {};
  const std::uint64_t mark = library.logger().mark();
  const RuntimeConfigMethods& call = library.abi().runtime_config;
  Object config(library.abi().engine.create_runtime_config(engine.interface()),
                Destroy{engine.device()});
  if (config == nullptr) {
    throw Error(library.logger().explain("TensorRT gives no runtime configuration", mark));
  }
  call.set_allocation(config.get(), options.allocation);
  call.set_specialization(config.get(), options.specialization);
  if (options.cache && !call.set_cache(config.get(), options.cache->interface())) {
    throw Error(library.logger().explain("the runtime cache is refused", mark));
  }
  return config;
}

Object create_context(const Engine& engine, void* config, Allocation allocation) {
  const Library& library = engine.library();
  const std::uint64_t mark = library.logger().mark();
  const EngineMethods& call = library.abi().engine;
  void* context = config == nullptr ? call.create_context(engine.interface(), allocation)
                                    : call.create_configured_context(engine.interface(), config);
  if (context == nullptr) {
    throw Error(library.logger().explain("no execution context, which needs " +
                                             std::to_string(engine.device_memory_size()) +
                                             " bytes of scratch memory on the GPU",
                                         mark));
  }
  check_context(library.abi(), context);
  return {context, Destroy{engine.device()}};
}

}  // namespace

ExecutionContext::ExecutionContext(std::shared_ptr<const Engine> engine, ContextOptions options)
    : engine_(std::move(engine)),
      cache_(std::move(options.cache)),
      config_(create_config(*engine_, {options.allocation, options.specialization, cache_})),
      context_(create_context(*engine_, config_.get(), options.allocation)) {}

void ExecutionContext::require(bool done, const std::string& what, std::uint64_t mark) const {
  if (!done) throw Error(engine_->library().logger().explain(what, mark));
}

void ExecutionContext::set_profile(std::int32_t profile, void* stream) {
  const std::uint64_t before = mark();
  require(abi().context.set_profile(context_.get(), profile, stream),
          "profile " + std::to_string(profile) + " cannot be chosen", before);
}

void ExecutionContext::set_input_shape(const char* name, const Shape& shape) {
  const std::uint64_t before = mark();
  const Dims dims = to_dims(shape);
  if (abi().context.set_input_shape(context_.get(), name, &dims)) return;
  require(false, std::string("input ") + name + " cannot have the shape " + to_text(shape), before);
}

Shape ExecutionContext::tensor_shape(const char* name) const {
  return to_shape(abi().context.tensor_shape(context_.get(), name));
}

void ExecutionContext::set_address(const char* name, void* address) {
  const std::uint64_t before = mark();
  if (abi().context.set_tensor_address(context_.get(), name, address)) return;
  require(false, std::string("tensor ") + name + " cannot have that address", before);
}

void ExecutionContext::infer_shapes() {
  const std::uint64_t before = mark();
  const std::int32_t missing = abi().context.infer_shapes(context_.get(), 0, nullptr);
  require(missing == 0, "shapes or values of inputs are missing", before);
}

void ExecutionContext::set_input_consumed_event(void* event) {
  const std::uint64_t before = mark();
  require(abi().context.set_input_consumed_event(context_.get(), event),
          "the event for consumed inputs is refused", before);
}

void ExecutionContext::enqueue(void* stream) {
  const std::uint64_t before = mark();
  if (abi().context.enqueue(context_.get(), stream)) return;
  require(false, "the batch cannot be enqueued", before);
}

std::size_t ExecutionContext::required_device_memory() {
  return abi().context.update_device_memory_size(context_.get());
}

void ExecutionContext::set_device_memory(void* memory, std::size_t bytes) {
  const ContextMethods& call = abi().context;
  if (call.set_sized_device_memory.exists()) {
    call.set_sized_device_memory(context_.get(), memory, static_cast<std::int64_t>(bytes));
  } else {
    call.set_device_memory(context_.get(), memory);
  }
}

}  // namespace trtinfer::tensorrt
