// Python face of pipeline::LatencyPolicy: sessions make one, simulations ask it.
#include "pipeline/latency_policy.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "bindings/register.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::LatencyPolicy;
using ring::Nanoseconds;

namespace {

Nanoseconds nanoseconds(double seconds) { return std::llround(seconds * 1e9); }
double seconds(Nanoseconds time) { return static_cast<double>(time) * 1e-9; }

std::shared_ptr<LatencyPolicy> make(std::optional<double> target, std::uint32_t lanes,
                                    std::vector<std::uint32_t> sizes, bool lanes_share, bool pads) {
  return std::make_shared<LatencyPolicy>(pipeline::LatencyPolicyOptions{
      target ? nanoseconds(*target) : ring::kNever, lanes, lanes_share, pads, std::move(sizes)});
}

}  // namespace

void register_latency_policy(py::module_& m) {
  py::class_<LatencyPolicy, std::shared_ptr<LatencyPolicy>> policy(m, "LatencyPolicy");
  policy.attr("OVERHEAD") = LatencyPolicy::kOverhead * 1e-9;
  policy.attr("DOUBLING_PAYS") = LatencyPolicy::kDoublingPays;
  policy
      .def(py::init(&make), py::arg("target"), py::arg("lanes"), py::arg("sizes"), py::kw_only(),
           py::arg("lanes_share"), py::arg("pads"))
      .def("learn", [](LatencyPolicy& self, std::uint32_t samples,
                       double cost) { self.learn(samples, nanoseconds(cost)); })
      .def("decide",
           [](const LatencyPolicy& self, double now, std::uint32_t queued) {
             const auto decision = self.decide(nanoseconds(now), queued);
             return std::pair(decision.samples, seconds(decision.retry_at));
           })
      .def("predict",
           [](const LatencyPolicy& self, double now, std::uint32_t queued, std::uint32_t samples) {
             return seconds(self.predict(nanoseconds(now), queued, samples));
           })
      .def("admits",
           [](const LatencyPolicy& self, double now, std::uint32_t queued, std::uint32_t samples) {
             return self.admits(nanoseconds(now), queued, samples);
           })
      .def("launched",
           [](LatencyPolicy& self, std::uint32_t lane, double now, std::uint32_t samples) {
             self.launched(lane, nanoseconds(now), samples);
           })
      .def("finished", [](LatencyPolicy& self, std::uint32_t lane,
                          double now) { self.finished(lane, nanoseconds(now)); })
      .def("answered",
           [](LatencyPolicy& self, double predicted, double latency) {
             self.answered(nanoseconds(predicted), nanoseconds(latency));
           })
      .def("cost", [](const LatencyPolicy& self,
                      std::uint32_t samples) { return seconds(self.cost(samples)); })
      .def_property_readonly("batch_limit", &LatencyPolicy::batch_limit)
      .def_property_readonly("margin",
                             [](const LatencyPolicy& self) { return seconds(self.margin()); })
      .def_property_readonly("sizes", &LatencyPolicy::sizes);
}

}  // namespace trtinfer::bindings
