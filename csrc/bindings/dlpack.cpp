#include "bindings/dlpack.hpp"

#include <string>

#include "bindings/errors.hpp"

namespace py = pybind11;

namespace trtinfer::bindings::dlpack {
namespace {

// A capsule "dltensor", of DLPack before 1.0.
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

// A capsule "dltensor_versioned".
struct VersionedTensor {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(VersionedTensor*);
  std::uint64_t flags;
  Tensor tensor;
};

constexpr std::uint32_t kMajor = 1;

py::object make_capsule(py::handle value, const void* stream) {
  const py::object method = value.attr("__dlpack__");
  const auto number = reinterpret_cast<std::uintptr_t>(stream);
  try {
    return method(py::arg("stream") = number, py::arg("max_version") = py::make_tuple(kMajor, 0));
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // else a producer that knows no versions
  }
  return method(py::arg("stream") = number);
}

template <typename Managed>
std::shared_ptr<const Tensor> take_over(const py::object& capsule, const char* name,
                                        const char* used_name) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (managed == nullptr || PyCapsule_SetName(capsule.ptr(), used_name) != 0) {
    throw py::error_already_set();
  }
  return {&managed->tensor, [managed](const Tensor*) {
            if (managed->deleter != nullptr) with_gil([managed] { managed->deleter(managed); });
          }};
}

}  // namespace

std::optional<Device> device_of(py::handle value) {
  const py::object method = py::getattr(value, "__dlpack_device__", py::none());
  if (method.is_none()) return std::nullopt;
  const auto device = method().cast<py::tuple>();
  return Device{device[0].cast<std::int32_t>(), device[1].cast<std::int32_t>()};
}

std::shared_ptr<const Tensor> take(py::handle value, const void* stream) {
  const py::object capsule = make_capsule(value, stream);
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
    return take_over<ManagedTensor>(capsule, "dltensor", "used_dltensor");
  }
  const char* const name = "dltensor_versioned";
  const void* versioned = PyCapsule_GetPointer(capsule.ptr(), name);
  if (versioned == nullptr) throw py::error_already_set();
  const std::uint32_t major = static_cast<const VersionedTensor*>(versioned)->major;
  if (major != kMajor) throw py::buffer_error("it speaks DLPack " + std::to_string(major));
  return take_over<VersionedTensor>(capsule, name, "used_dltensor_versioned");
}

}  // namespace trtinfer::bindings::dlpack
