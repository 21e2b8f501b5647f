#include "tensorrt/abi.hpp"

namespace trtinfer::tensorrt {
namespace {

/// Picks a family's number out of a row of the tables below.
struct Pick {
  Family family;
  int version;

  constexpr int operator()(int tensorrt10, int tensorrt11, int rtx) const {
    switch (family) {
      case Family::kTensorRt10:
        return tensorrt10;
      case Family::kTensorRt11:
        return tensorrt11;
      case Family::kRtx1:
        return rtx;
    }
    return kAbsent;
  }

  /// A slot of TensorRT 10 that only releases from `first` on have, and what earlier ones offer.
  constexpr int since(int first, int slot, int earlier = kAbsent) const {
    return version >= first ? slot : earlier;
  }
};

// In the rows: TensorRT 10, TensorRT 11, TensorRT-RTX 1.5 to 1.7. One number: the same in all.

RuntimeMethods runtime(Pick slot) {
  return {.get_self = 2,
          .deserialize_engine = 3,
          .get_logger = slot(11, 10, 10),
          .set_max_threads = slot(12, 11, 11),
          .get_max_threads = slot(13, 12, 12)};
}

EngineMethods engine(Pick slot) {
  // 10.0 has only getDeviceMemorySize, which returns the same number.
  return {.get_self = 2,
          .layer_count = 3,
          .create_context = 5,
          .device_memory_size = slot(slot.since(100100, 52, 7), 44, 44),
          .get_name = slot(9, 7, 7),
          .profile_count = slot(10, 8, 8),
          .tensor_shape = slot(19, 15, 15),
          .tensor_dtype = slot(20, 16, 16),
          .tensor_location = slot(21, 17, 17),
          .tensor_mode = slot(23, 19, 19),
          .tensor_format = slot(26, 22, 22),
          .profile_shape = slot(29, 25, 25),
          .io_count = slot(30, 26, 26),
          .io_name = slot(31, 27, 27),
          .create_configured_context = slot(slot.since(101100, 55), 47, 47),
          .create_runtime_config = slot(slot.since(101100, 56), 48, 48)};
}

ContextMethods context(Pick slot) {
  return {.get_self = 2,
          .set_device_memory = 10,
          .set_sized_device_memory = slot(slot.since(100100, 49), 48, 48),
          .get_profile = 11,
          .set_profile = slot(17, 16, 16),
          .set_input_shape = slot(21, 20, 20),
          .tensor_shape = slot(22, 21, 21),
          .set_tensor_address = slot(24, 23, 23),
          .infer_shapes = slot(28, 27, 27),
          .set_input_consumed_event = slot(29, 28, 28),
          .enqueue = slot(37, 36, 36),
          .update_device_memory_size = slot(48, 47, 47)};
}

RuntimeConfigMethods runtime_config(Pick slot) {
  return {.get_self = 2,
          .set_allocation = 3,
          .create_cache = slot(kAbsent, kAbsent, 5),
          .set_cache = slot(kAbsent, kAbsent, 6),
          .set_specialization = slot(kAbsent, kAbsent, 8),
          .get_specialization = slot(kAbsent, kAbsent, 9),
          .set_graph_strategy = slot(kAbsent, kAbsent, 10)};
}

RuntimeCacheMethods runtime_cache(Pick slot) {
  return {.serialize = slot(kAbsent, kAbsent, 2), .deserialize = slot(kAbsent, kAbsent, 3)};
}

BuilderMethods builder(Pick slot) {
  return {.create_config = slot(7, 5, 5),
          .create_network = slot(8, 6, 6),
          .create_profile = slot(9, 7, 7),
          .build = slot(14, 11, 11),
          .get_logger = slot(16, 13, 13),
          .set_max_threads = slot(17, 14, 14),
          .get_max_threads = slot(18, 15, 15)};
}

ConfigMethods config(Pick slot) {
  return {.set_flag = slot(11, 9, 9),
          .clear_flag = slot(10, 8, 8),
          .get_flag = slot(12, 10, 10),
          .add_profile = slot(25, 23, 23),
          .create_timing_cache = slot(40, 29, 29),
          .set_timing_cache = slot(41, 30, 30),
          .get_timing_cache = slot(42, 31, 31),
          .set_memory_limit = slot(43, 32, 32),
          .get_memory_limit = slot(44, 33, 33),
          .set_optimization_level = slot(47, 36, 36),
          .get_optimization_level = slot(48, 37, 37),
          .set_max_aux_streams = slot(54, 43, 43),
          .get_max_aux_streams = slot(55, 44, 44),
          .set_progress_monitor = slot(56, 45, 45),
          .set_compute_capability_count = slot(kAbsent, kAbsent, 55),
          .get_compute_capability_count = slot(kAbsent, kAbsent, 56),
          .set_compute_capability = slot(kAbsent, kAbsent, 57)};
}

NetworkMethods network(Pick slot) {
  // 10.8 alone inserted a method before getFlag; 10.9 moved that method to the end.
  const bool inserted = slot.version >= 100800 && slot.version < 100900;
  return {.layer_count = 12,
          .input_count = 14,
          .get_input = 15,
          .output_count = 16,
          .get_output = 17,
          .get_flag = slot(inserted ? 66 : 65, 62, 60)};
}

TensorMethods tensor(Pick slot) {
  return {.get_name = 3,
          .get_shape = 5,
          .get_dtype = slot(7, 6, 6),
          .is_shape_tensor = slot(21, 15, 11)};
}

ProfileMethods profile(Pick slot) { return {.set_shape = 2, .is_valid = slot(9, 7, 7)}; }

ParserMethods parser(Pick slot) {
  return {.parse = 0,
          .parse_file = 1,
          .error_count = slot(5, 3, 3),
          .get_error = slot(6, 4, 4),
          .destroy = slot(9, 7, 7)};
}

Flags flags(Pick bit) {
  return {.tf32 = 6,
          .fp16 = bit(0, kNoFlag, kNoFlag),
          .bf16 = bit(17, kNoFlag, kNoFlag),
          .int8 = bit(1, kNoFlag, kNoFlag),
          .strongly_typed = bit(1, 0, 0)};
}

CallbackSlots callbacks(Pick slot) {
  return {.log = slot(0, 4, 4), .phase_start = 4, .step_complete = 5, .phase_finish = 6};
}

}  // namespace

const char* family_name(Family family) {
  switch (family) {
    case Family::kTensorRt10:
      return "TensorRT 10";
    case Family::kTensorRt11:
      return "TensorRT 11";
    case Family::kRtx1:
      return "TensorRT-RTX 1.5 to 1.7";
  }
  return "unknown";
}

std::optional<Family> family_of(int version) {
  if (version >= 10500 && version < 10800) return Family::kRtx1;
  if (version >= 100000 && version < 110000) return Family::kTensorRt10;
  if (version >= 110000 && version < 120000) return Family::kTensorRt11;
  return std::nullopt;
}

Abi abi_of(Family family, int version) {
  const Pick pick{family, version};
  return {
      .family = family,
      .runtime = runtime(pick),
      .engine = engine(pick),
      .context = context(pick),
      .runtime_config = runtime_config(pick),
      .runtime_cache = runtime_cache(pick),
      .builder = builder(pick),
      .config = config(pick),
      .network = network(pick),
      .tensor = tensor(pick),
      .profile = profile(pick),
      .host_memory = {.data = 2, .size = 3},
      .timing_cache = {.serialize = 2},
      .parser = parser(pick),
      .parser_error = {.code = 0, .description = 1, .node = 5, .node_name = 6, .node_operator = 7},
      .flags = flags(pick),
      .callbacks = callbacks(pick)};
}

}  // namespace trtinfer::tensorrt
