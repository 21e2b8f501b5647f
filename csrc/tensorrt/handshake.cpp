#include "tensorrt/handshake.hpp"

#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "tensorrt/error.hpp"

namespace trtinfer::tensorrt {
namespace {

[[noreturn]] void refuse(const char* what, const std::string& why) {
  throw Error(std::string(what) +
              " does not have the binary interface that is expected of it: " + why);
}

/// Whether bytes can be read; the kernel answers a write from them with EFAULT instead of a signal.
class MemoryProbe {
 public:
  MemoryProbe() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0) throw Error("pipe2() failed: too many open files?");
  }
  ~MemoryProbe() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  MemoryProbe(const MemoryProbe&) = delete;
  MemoryProbe& operator=(const MemoryProbe&) = delete;

  bool readable(const void* address, std::size_t bytes) {
    if (reinterpret_cast<std::uintptr_t>(address) % alignof(void*) != 0) return false;
    std::array<char, 64> sink;
    if (::write(ends_[1], address, std::min(bytes, sink.size())) <= 0) return false;
    return ::read(ends_[0], sink.data(), sink.size()) > 0;
  }

 private:
  std::array<int, 2> ends_{};
};

struct Search {
  std::uintptr_t address;
  bool found;
};

int find_code(dl_phdr_info* object, std::size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr) & segment = object->dlpi_phdr[i];
    const std::uintptr_t begin = object->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0 && search->address >= begin &&
        search->address < begin + segment.p_memsz) {
      search->found = true;
    }
  }
  return search->found ? 1 : 0;
}

bool is_code(const void* address) {
  Search search{reinterpret_cast<std::uintptr_t>(address), false};
  ::dl_iterate_phdr(&find_code, &search);
  return search.found;
}

/// The object's first word leads to a vtable whose entries in `slots` are functions.
template <std::size_t Count>
void check_vtable(const char* what, MemoryProbe& memory, const void* object,
                  const std::array<int, Count>& slots) {
  if (!memory.readable(object, 2 * sizeof(void*))) refuse(what, "it is at an invalid address");
  void* const* vtable = *static_cast<void* const* const*>(object);
  for (int slot : slots) {
    if (slot == kAbsent) continue;
    if (!memory.readable(static_cast<const void*>(vtable + slot), sizeof(void*)) ||
        !is_code(vtable[slot])) {
      refuse(what, "slot " + std::to_string(slot) + " of its vtable holds no function");
    }
  }
}

template <typename... Methods>
void check_object(const char* what, const void* object, const Methods&... methods) {
  MemoryProbe memory;
  check_vtable(what, memory, object, std::array{0, 1});
  check_vtable(what, memory, static_cast<void* const*>(object)[1], std::array{methods.slot()...});
}

/// Any number will do that is not what is there already.
void check_threads(const char* what, void* object, const Method<bool(std::int32_t)>& set,
                   const Method<std::int32_t()>& get) {
  const std::int32_t before = get(object);
  const std::int32_t other = before == 3 ? 2 : 3;
  const bool accepted = set(object, other);
  const std::int32_t after = get(object);
  if (!accepted || after != other) {
    refuse(what, "a thread limit of " + std::to_string(other) + " was set and " +
                     std::to_string(after) + " read back");
  }
  set(object, before);
}

void check_logger(const char* what, void* handed_back, Logger& logger) {
  if (handed_back != logger.interface()) refuse(what, "it does not hand our logger back");
  if (logger.misused_slot() >= 0) {
    refuse(what, "it calls slot " + std::to_string(logger.misused_slot()) + " of our logger");
  }
}

}  // namespace

void check_runtime(const Abi& abi, void* runtime, Logger& logger) {
  constexpr const char* kWhat = "the runtime";
  const RuntimeMethods& call = abi.runtime;
  check_object(kWhat, runtime, call.get_self, call.deserialize_engine, call.get_logger,
               call.set_max_threads, call.get_max_threads);
  if (call.get_self(runtime) != runtime) refuse(kWhat, "it does not hand itself back");
  // A wrong table calls a getter or setMaxThreads here: harmless, and the answer is not our logger.
  check_logger(kWhat, call.get_logger(runtime), logger);
  check_threads(kWhat, runtime, call.set_max_threads, call.get_max_threads);
}

void check_builder(const Abi& abi, void* builder, Logger& logger) {
  constexpr const char* kWhat = "the builder";
  const BuilderMethods& call = abi.builder;
  check_object(kWhat, builder, call.create_config, call.create_network, call.create_profile,
               call.build, call.get_logger, call.set_max_threads, call.get_max_threads);
  check_logger(kWhat, call.get_logger(builder), logger);
  check_threads(kWhat, builder, call.set_max_threads, call.get_max_threads);
}

void check_config(const Abi& abi, void* config) {
  constexpr const char* kWhat = "the builder configuration";
  const ConfigMethods& call = abi.config;
  check_object(kWhat, config, call.set_flag, call.clear_flag, call.get_flag, call.add_profile,
               call.set_memory_limit, call.get_memory_limit, call.set_optimization_level,
               call.get_optimization_level, call.set_max_aux_streams, call.get_max_aux_streams,
               call.set_progress_monitor, call.set_compute_capability_count,
               call.set_compute_capability);
  const std::int32_t level = call.get_optimization_level(config);
  if (level < 0 || level > 5) {
    refuse(kWhat, "its optimization level is " + std::to_string(level));
  }
  call.set_optimization_level(config, level == 2 ? 1 : 2);
  const std::int32_t changed = call.get_optimization_level(config);
  if (changed == level || changed != (level == 2 ? 1 : 2)) {
    refuse(kWhat, "an optimization level was set and " + std::to_string(changed) + " read back");
  }
  call.set_optimization_level(config, level);
}

void check_engine(const Abi& abi, void* engine) {
  constexpr const char* kWhat = "the engine";
  const EngineMethods& call = abi.engine;
  check_object(kWhat, engine, call.get_self, call.layer_count, call.create_context,
               call.device_memory_size, call.get_name, call.profile_count, call.tensor_shape,
               call.tensor_dtype, call.tensor_location, call.tensor_mode, call.tensor_format,
               call.profile_shape, call.io_count, call.io_name, call.create_configured_context,
               call.create_runtime_config);
  if (call.get_self(engine) != engine) refuse(kWhat, "it does not hand itself back");
}

void check_context(const Abi& abi, void* context) {
  constexpr const char* kWhat = "the execution context";
  const ContextMethods& call = abi.context;
  check_object(kWhat, context, call.get_self, call.set_device_memory, call.set_sized_device_memory,
               call.get_profile, call.set_profile, call.set_input_shape, call.tensor_shape,
               call.set_tensor_address, call.infer_shapes, call.set_input_consumed_event,
               call.enqueue, call.update_device_memory_size);
  if (call.get_self(context) != context) refuse(kWhat, "it does not hand itself back");
}

void check_network(const Abi& abi, void* network) {
  const NetworkMethods& call = abi.network;
  check_object("the network", network, call.layer_count, call.input_count, call.get_input,
               call.output_count, call.get_output, call.get_flag);
  const std::int32_t layers = call.layer_count(network);
  if (layers != 0) refuse("the network", "it is new and has " + std::to_string(layers) + " layers");
}

void check_parser(const Abi& abi, void* parser) {
  const ParserMethods& call = abi.parser;
  MemoryProbe memory;
  check_vtable("the ONNX parser", memory, parser,
               std::array{call.parse.slot(), call.parse_file.slot(), call.error_count.slot(),
                          call.get_error.slot(), call.destroy.slot()});
  const std::int32_t errors = call.error_count(parser);
  if (errors != 0) {
    refuse("the ONNX parser", "it is new and counts " + std::to_string(errors) + " errors");
  }
}

}  // namespace trtinfer::tensorrt
