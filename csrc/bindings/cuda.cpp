// Python face of csrc/cuda.
#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"
#include "cuda/device.hpp"
#include "cuda/memory.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

void register_cuda(py::module_& m) {
  using cuda::Device;
  using cuda::Probe;
  py::class_<Device>(m, "CudaDevice")
      .def_readonly("index", &Device::index)
      .def_readonly("name", &Device::name)
      .def_readonly("compute_capability", &Device::compute_capability)
      .def_readonly("memory_bytes", &Device::memory_bytes)
      .def_readonly("pci_address", &Device::pci_address);
  py::class_<Probe>(m, "CudaProbe")
      .def_readonly("compiled", &Probe::compiled)
      .def_readonly("driver_version", &Probe::driver_version)
      .def_readonly("runtime_version", &Probe::runtime_version)
      .def_readonly("error", &Probe::error)
      .def_readonly("reason", &Probe::reason)
      .def_readonly("devices", &Probe::devices);
  m.def("probe_cuda", &cuda::probe, py::call_guard<Unlocked>());
  m.def(
      "gpu_memory",
      [] {
        const cuda::MemoryInfo info = cuda::memory_info();
        return std::pair(info.free, info.total);
      },
      py::call_guard<Unlocked>());
  m.def("code_architecture", &cuda::code_architecture, py::arg("device"),
        py::call_guard<Unlocked>());
}

}  // namespace trtinfer::bindings
