#include "bindings/dlpack.hpp"

#include <string>
#include <utility>
#include <vector>

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

// What a capsule of ours holds.
template <typename Managed>
struct Given {
  Managed managed{};
  std::vector<std::int64_t> shape, strides;
  std::shared_ptr<const void> owner;
};

template <typename Managed>
void drop(Managed* managed) {
  delete static_cast<Given<Managed>*>(managed->context);
}

template <typename Managed>
Given<Managed>* make_given(const Tensor& tensor, std::shared_ptr<const void> owner) {
  auto given = std::make_unique<Given<Managed>>();
  given->shape.assign(tensor.shape, tensor.shape + tensor.rank);
  given->strides.assign(tensor.strides, tensor.strides + tensor.rank);
  given->owner = std::move(owner);
  given->managed.tensor = tensor;
  given->managed.tensor.shape = given->shape.data();
  given->managed.tensor.strides = given->strides.data();
  given->managed.context = given.get();
  given->managed.deleter = &drop<Managed>;
  return given.release();
}

// Nobody has taken it over while it has its first name.
template <typename Managed>
void drop_untaken(PyObject* capsule, const char* name) {
  if (PyCapsule_IsValid(capsule, name) == 0) return;
  drop(static_cast<Managed*>(PyCapsule_GetPointer(capsule, name)));
}

}  // namespace

py::capsule give(const Tensor& tensor, std::shared_ptr<const void> owner, bool versioned) {
  if (versioned) {
    auto* given = make_given<VersionedTensor>(tensor, std::move(owner));
    given->managed.major = kMajor;
    return py::capsule(&given->managed, "dltensor_versioned", [](PyObject* capsule) {
      drop_untaken<VersionedTensor>(capsule, "dltensor_versioned");
    });
  }
  auto* given = make_given<ManagedTensor>(tensor, std::move(owner));
  return py::capsule(&given->managed, "dltensor",
                     [](PyObject* capsule) { drop_untaken<ManagedTensor>(capsule, "dltensor"); });
}

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
