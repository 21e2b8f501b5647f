// Python face of the bare replay of an engine, which benches compare with.
#include "pipeline/engine_replay.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/errors.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"
#include "cuda/error.hpp"
#include "pipeline/executor.hpp"
#include "tensorrt/error.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::EngineReplay;
using pipeline::EngineReplayOptions;

namespace {

constexpr double kNanosecond = 1e-9;

template <typename Function>
auto call(Function&& function) {
  try {
    const Unlocked unlocked;
    return function();
  } catch (const cuda::Error& error) {
    raise_error("BackendError", error.what());
  } catch (const tensorrt::Error& error) {
    raise_error("BackendError", error.what());
  } catch (const pipeline::ExecutionError& error) {
    raise_error("ModelError", error.what());
  }
}

std::unique_ptr<EngineReplay> open(const std::shared_ptr<tensorrt::Engine>& engine,
                                   const std::vector<py::array>& inputs, int device,
                                   std::uint32_t lanes, bool transfers, bool in_turn,
                                   const std::shared_ptr<tensorrt::RuntimeCache>& cache) {
  std::vector<py::array> arrays;  // keeps what the bytes are of
  std::vector<EngineReplay::Bytes> bytes;
  for (const py::array& input : inputs) {
    arrays.push_back(py::array::ensure(input, py::array::c_style));
    bytes.emplace_back(static_cast<const std::byte*>(arrays.back().data()), arrays.back().nbytes());
  }
  const auto order = in_turn ? cuda::KernelOrder::kInTurn : cuda::KernelOrder::kAsEnqueued;
  const EngineReplayOptions options{device, lanes, transfers, order, cache};
  return call([&] { return std::make_unique<EngineReplay>(engine, bytes, options); });
}

std::vector<double> time_alone(const EngineReplay& replay, std::uint32_t replays) {
  std::vector<double> seconds;
  for (const ring::Nanoseconds time : call([&] { return replay.time_alone(replays); })) {
    seconds.push_back(static_cast<double>(time) * kNanosecond);
  }
  return seconds;
}

double time_saturated(const EngineReplay& replay, std::uint32_t replays) {
  const ring::Nanoseconds time = call([&] { return replay.time_saturated(replays); });
  return static_cast<double>(time) * kNanosecond;
}

std::vector<py::bytes> outputs(const EngineReplay& replay) {
  std::vector<py::bytes> copies;
  for (const EngineReplay::Bytes& bytes : call([&] { return replay.outputs(); })) {
    copies.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return copies;
}

}  // namespace

void register_engine_replay(py::module_& m) {
  py::class_<EngineReplay>(m, "EngineReplay")
      .def(py::init(&open), py::arg("engine"), py::arg("inputs"), py::kw_only(),
           py::arg("device") = 0, py::arg("lanes") = 1, py::arg("transfers") = false,
           py::arg("in_turn") = true, py::arg("cache") = py::none())
      .def("time_alone", &time_alone, py::arg("replays"))
      .def("time_saturated", &time_saturated, py::arg("replays"))
      .def("outputs", &outputs);
}

}  // namespace trtinfer::bindings
