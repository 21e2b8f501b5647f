#include "bindings/open_loop.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/errors.hpp"
#include "bindings/pipeline.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::OpenLoop;
using pipeline::Sample;
using ring::Nanoseconds;

namespace {

using Times = py::array_t<Nanoseconds>;

Times array_of(const std::vector<Nanoseconds>& values) {
  return Times(static_cast<py::ssize_t>(values.size()), values.data());
}

}  // namespace

OpenLoopHandle PipelineHandle::open_loop(const py::list& xs, py::handle convert,
                                         const Times& arrivals, bool waits_for_room,
                                         std::optional<double> timeout,
                                         std::vector<int> priorities) {
  py::list arrays;
  std::vector<Sample> samples;
  for (const py::handle x : xs) {
    ParsedInputs parsed;
    match(x, convert, parsed);
    if (parsed.rows > pipeline_->max_batch_size()) {
      raise_error("InputError", "a request of an open loop must fit into one batch");
    }
    Sample sample{parsed.rows, parsed.has_batch_axis, {}, {}, {}};
    if (!pipeline_->memory().is_static()) {
      sample.shapes = layout_->unit_shapes(parsed, parsed.rows);
    }
    for (const py::array& array : parsed.arrays) {
      sample.inputs.push_back(static_cast<const std::byte*>(array.data()));
      sample.bytes.push_back(static_cast<std::size_t>(array.nbytes()));
      arrays.append(array);
    }
    samples.push_back(std::move(sample));
  }
  std::vector<Nanoseconds> times(arrivals.data(), arrivals.data() + arrivals.size());
  pipeline::Terms terms{waits_for_room, deadline_from(0, timeout), std::move(priorities)};
  auto loop =
      std::make_shared<OpenLoop>(pipeline_, std::move(samples), std::move(times), std::move(terms));
  return {std::move(loop), std::move(arrays)};
}

void register_open_loop(py::module_& m) {
  py::class_<OpenLoopHandle> loop(m, "OpenLoop");
  loop.attr("REFUSED") = OpenLoop::kRefused;
  loop.attr("FAILED") = OpenLoop::kFailed;
  loop.attr("UNSENT") = OpenLoop::kUnsent;
  loop.def("run",
           [](const OpenLoopHandle& self) {
             const std::shared_ptr<OpenLoop> loop = self.loop;
             const Unlocked unlocked;
             loop->run();
           })
      .def("stop", [](const OpenLoopHandle& self) { self.loop->stop(); })
      .def_property_readonly("sent", [](const OpenLoopHandle& self) { return self.loop->sent(); })
      .def_property_readonly(
          "latencies", [](const OpenLoopHandle& self) { return array_of(self.loop->latencies()); })
      .def_property_readonly(
          "lateness", [](const OpenLoopHandle& self) { return array_of(self.loop->lateness()); })
      .def_property_readonly("elapsed",
                             [](const OpenLoopHandle& self) { return self.loop->elapsed(); });
}

}  // namespace trtinfer::bindings
