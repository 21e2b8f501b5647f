#include "bindings/pipeline.hpp"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/errors.hpp"
#include "bindings/loop_future.hpp"
#include "bindings/notifier.hpp"
#include "bindings/register.hpp"
#include "bindings/tensors.hpp"
#include "bindings/trace_log.hpp"
#include "bindings/unlocked.hpp"
#include "cuda/error.hpp"
#include "pipeline/own_thread.hpp"
#include "pipeline/process.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Claim;
using pipeline::Outcome;
using pipeline::Pipeline;
using pipeline::Request;
using pipeline::Shape;
using ring::kNever;
using ring::Nanoseconds;

py::object PipelineHandle::infer(py::handle x, std::optional<double> timeout, int priority) {
  ParsedInputs parsed;
  if (!layout_->match(x, parsed)) return py::none();
  const std::shared_ptr<Request> request = make_request(parsed, timeout);
  publish_in_turn(parsed, request, timeout ? request->deadline : 0, priority, false);
  return wait_for(pipeline_, *layout_, request);
}

std::optional<PendingRequest> PipelineHandle::submit(py::handle x, const Delivery& delivery) {
  ParsedInputs parsed;
  if (!layout_->match(x, parsed)) return std::nullopt;
  if (delivery.on_loop && parsed.any_on_gpu() && !pipeline_->reads_device_inputs()) {
    return std::nullopt;  // they are waited for, which an event loop must not do
  }
  return submit_parsed(parsed, make_request(parsed, delivery), delivery);
}

PendingRequest PipelineHandle::submit_parsed(const ParsedInputs& parsed, RequestPtr request,
                                             const Delivery& delivery) {
  if (delivery.timeout && !delivery.on_loop) {
    publish_in_turn(parsed, request, request->deadline, delivery.priority, delivery.wakes);
  } else {
    publish_at_once(parsed, request, delivery);
  }
  return watch(std::move(request));
}

PendingRequest PipelineHandle::watch(RequestPtr request) {
  if (request->deadline != kNever) pipeline_->watch_deadline(request);
  return {pipeline_, std::move(request)};
}

py::object PipelineHandle::submit_on_loop(py::handle x, py::handle loop, Delivery delivery) {
  py::object future = loop_future::make(loop);
  delivery.cookie = future;
  delivery.on_loop = true;
  delivery.wakes = false;
  ClaimHandle* claim = ClaimHandle::of(x);
  std::optional<PendingRequest> pending =
      claim == nullptr ? submit(x, delivery) : claim->submit(delivery);
  if (!pending) return {};
  loop_future::attach(future, std::move(*pending));
  return future;
}

std::unique_ptr<ClaimHandle> PipelineHandle::claim(std::uint32_t rows, bool has_batch_axis,
                                                   const std::vector<Shape>& shapes,
                                                   std::optional<double> timeout) {
  const Nanoseconds until = timeout ? deadline_from(ring::now(), timeout) : 0;
  return std::make_unique<ClaimHandle>(pipeline_, layout_, claim_rows(rows, shapes, until),
                                       has_batch_axis);
}

py::object PipelineHandle::infer_object(py::object inputs, std::optional<double> timeout,
                                        int priority) {
  const std::shared_ptr<Request> request =
      publish_object(std::move(inputs), {nullptr, py::none(), timeout, priority});
  wait_for(pipeline_, *layout_, request);
  return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(request->payload.get()));
}

PendingRequest PipelineHandle::submit_object(py::object inputs, const Delivery& delivery) {
  return watch(publish_object(std::move(inputs), delivery));
}

double PipelineHandle::time_batch(std::uint32_t rows, const std::vector<Shape>& shapes) {
  const Unlocked unlocked;
  return static_cast<double>(pipeline_->time_batch(rows, shapes)) * 1e-9;
}

std::vector<StreamHandle> PipelineHandle::streams() const {
  std::vector<StreamHandle> streams;
  for (const pipeline::LaneStream& stream : pipeline_->streams()) {
    streams.push_back({pipeline_, stream});
  }
  return streams;
}

void PipelineHandle::close(bool drain) {
  const Unlocked unlocked;
  pipeline_->close(drain);
}

std::shared_ptr<Request> PipelineHandle::make_request(const ParsedInputs& parsed,
                                                      std::optional<double> timeout) {
  const std::uint32_t max = pipeline_->max_batch_size();
  if (parsed.rows > max && pipeline_->keeps_outputs()) {
    raise_error("InputError", std::to_string(parsed.rows) + " samples are more than a batch of " +
                                  std::to_string(max) +
                                  ", which outputs that stay on the GPU are limited to: send less "
                                  "at a time, or raise max_batch_size=");
  }
  auto request = pipeline_->make_request(parsed.rows, parsed.has_batch_axis);
  keep_context(*pipeline_, *request);
  request->deadline = deadline_from(request->arrival, timeout);
  request->units_left = (parsed.rows + max - 1) / max;
  request->units.reserve(request->units_left);
  if (parsed.any_on_gpu()) {
    request->payload = std::make_shared<decltype(parsed.device_tensors)>(parsed.device_tensors);
  }
  return request;
}

std::shared_ptr<Request> PipelineHandle::make_request(const ParsedInputs& parsed,
                                                      const Delivery& delivery) {
  std::shared_ptr<Request> request = make_request(parsed, delivery.timeout);
  request->notifier = delivery.notifier;
  NotifierHandle::set_cookie(*request, delivery.cookie, layout_);
  return request;
}

void PipelineHandle::publish_at_once(const ParsedInputs& parsed,
                                     const std::shared_ptr<Request>& request,
                                     const Delivery& delivery) {
  if (parsed.rows > pipeline_->capacity()) {
    raise_error("InputError", std::to_string(parsed.rows) + " samples can never be queued in " +
                                  std::to_string(pipeline_->capacity()) +
                                  " slots: raise capacity=, use infer(), or send less at a time");
  }
  const std::uint32_t max = pipeline_->max_batch_size();
  if (parsed.rows <= max) {
    Claim claim = delivery.timeout ? claim_part_on_loop(parsed, 0) : claim_part(parsed, 0, 0);
    layout_->fill(parsed, 0, claim);
    pipeline_->publish(std::move(claim), request, 0, delivery.priority, delivery.wakes);
    return;
  }
  const Pipeline::ClosingHold hold(*pipeline_);
  std::vector<Claim> claims;
  for (std::uint32_t first = 0; first < parsed.rows; first += max) {
    claims.push_back(delivery.timeout ? claim_part_on_loop(parsed, first)
                                      : claim_part(parsed, first, 0));
    layout_->fill(parsed, first, claims.back());
  }
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const auto first = static_cast<std::uint32_t>(i) * max;
    try {
      pipeline_->publish(std::move(claims[i]), request, first, delivery.priority, delivery.wakes);
    } catch (const pipeline::ClosedError&) {
      if (i > 0) pipeline_->abandon(request, Outcome::kClosed);
      throw;
    }
  }
}

void PipelineHandle::publish_in_turn(const ParsedInputs& parsed,
                                     const std::shared_ptr<Request>& request, Nanoseconds until,
                                     int priority, bool wake) {
  Claim claim = claim_part(parsed, 0, until);
  layout_->fill(parsed, 0, claim);
  if (parsed.rows <= pipeline_->max_batch_size()) {
    return pipeline_->publish(std::move(claim), request, 0, priority, wake);
  }
  const Pipeline::ClosingHold hold(*pipeline_);
  pipeline_->publish(std::move(claim), request, 0, priority, true);
  publish_rest(parsed, request, priority);
}

void PipelineHandle::publish_rest(const ParsedInputs& parsed,
                                  const std::shared_ptr<Request>& request, int priority) {
  const std::uint32_t max = pipeline_->max_batch_size();
  try {
    for (std::uint32_t first = max; first < parsed.rows; first += max) {
      std::optional<Claim> claim = try_claim_part(parsed, first, request->deadline);
      if (!claim) return pipeline_->abandon(request, Outcome::kExpired);
      layout_->fill(parsed, first, *claim);
      pipeline_->publish(std::move(*claim), request, first, priority, true);
    }
  } catch (const pipeline::ClosedError&) {
    pipeline_->abandon(request, Outcome::kClosed);
  } catch (...) {
    pipeline_->abandon(request, Outcome::kFailed);
    throw;
  }
}

Claim PipelineHandle::claim_part(const ParsedInputs& parsed, std::uint32_t first,
                                 Nanoseconds until) {
  const std::uint32_t rows = std::min(pipeline_->max_batch_size(), parsed.rows - first);
  if (pipeline_->memory().is_static()) return claim_rows(rows, {}, until);
  return claim_rows(rows, layout_->unit_shapes(parsed, rows), until);
}

std::optional<Claim> PipelineHandle::try_claim_part(const ParsedInputs& parsed, std::uint32_t first,
                                                    Nanoseconds until) {
  const std::uint32_t rows = std::min(pipeline_->max_batch_size(), parsed.rows - first);
  std::vector<Shape> shapes;
  if (!pipeline_->memory().is_static()) shapes = layout_->unit_shapes(parsed, rows);
  std::optional<Claim> claim = pipeline_->try_claim(rows, shapes);
  if (claim || until == 0) return claim;
  const Unlocked unlocked;
  return pipeline_->try_claim(rows, shapes, until);
}

Claim PipelineHandle::claim_part_on_loop(const ParsedInputs& parsed, std::uint32_t first) {
  std::optional<Claim> claim = try_claim_part(parsed, first, 0);
  if (!claim) throw pipeline::FullError("no room for the request now");
  return std::move(*claim);
}

Claim PipelineHandle::claim_rows(std::uint32_t rows, const std::vector<Shape>& shapes,
                                 Nanoseconds until) {
  std::optional<Claim> claim = pipeline_->try_claim(rows, shapes);
  if (claim) return std::move(*claim);
  const Unlocked unlocked;
  if (until != 0) pipeline_->wake();  // what takes the room may have been published without it
  return pipeline_->claim(rows, shapes, until);
}

std::shared_ptr<Request> PipelineHandle::publish_object(py::object inputs,
                                                        const Delivery& delivery) {
  auto request = pipeline_->make_request(1, false);
  keep_context(*pipeline_, *request);
  request->deadline = deadline_from(request->arrival, delivery.timeout);
  request->payload = hold(std::move(inputs));
  request->notifier = delivery.notifier;
  if (delivery.notifier) {
    NotifierHandle::set_cookie(*request, delivery.cookie, nullptr);
  }
  Claim claim = claim_rows(1, {}, delivery.timeout ? request->deadline : 0);
  pipeline_->publish(std::move(claim), request, 0, delivery.priority, true);
  return request;
}

namespace {

ring::RingOptions ring_options(const py::kwargs& options) {
  ring::RingOptions result;
  result.capacity = options["capacity"].cast<std::uint32_t>();
  result.arena_bytes = options["arena_bytes"].cast<std::uint64_t>();
  result.lanes = options["lanes"].cast<std::uint32_t>();
  result.groups = options["groups"].cast<std::uint32_t>();
  result.max_batch_size = options["max_batch_size"].cast<std::uint32_t>();
  result.merge_limit = options["merge_limit"].cast<std::uint32_t>();
  result.max_delay = static_cast<Nanoseconds>(options["max_delay"].cast<double>() * 1e9);
  return result;
}

// A lane may want the GIL to finish its batch, so it is never held while the pipeline ends.
void destroy_unlocked(Pipeline* pipeline) {
  if (Py_IsInitialized() != 0 && may_touch_python()) {
    const Unlocked unlocked;
    delete pipeline;
  } else {
    delete pipeline;
  }
}

PipelineHandle open_pipeline(std::shared_ptr<pipeline::Executor> executor,
                             const std::vector<TensorTuple>& inputs,
                             const std::vector<TensorTuple>& outputs, bool has_rows,
                             std::shared_ptr<pipeline::LatencyPolicy> policy,
                             const py::kwargs& options) {
  try {
    std::shared_ptr<Pipeline> native(new Pipeline(std::move(executor), make_specs(inputs),
                                                  ring_options(options), std::move(policy)),
                                     &destroy_unlocked);
    return {std::move(native),
            std::make_shared<const Layout>(make_tensors(inputs), make_tensors(outputs), has_rows)};
  } catch (const cuda::Error& error) {
    raise_error("BackendError", error.what());
  }
}

}  // namespace

void register_pipeline(py::module_& m) {
  py::class_<PipelineHandle>(m, "Pipeline")
      .def(py::init(&open_pipeline), py::arg("executor"), py::arg("inputs"), py::arg("outputs"),
           py::arg("has_rows"), py::arg("policy") = py::none())
      .def("infer", &PipelineHandle::infer, py::arg("x"), py::arg("timeout") = py::none(),
           py::arg("priority") = 0)
      .def(
          "submit",
          [](PipelineHandle& self, py::handle x, const NotifierHandle& notifier, py::object cookie,
             std::optional<double> timeout, int priority) {
            return self.submit(x, {notifier.get(), std::move(cookie), timeout, priority});
          },
          py::arg("x"), py::arg("notifier"), py::arg("cookie"), py::arg("timeout") = py::none(),
          py::arg("priority") = 0)
      .def("infer_many", &PipelineHandle::infer_many, py::arg("xs"), py::arg("convert"),
           py::arg("timeout") = py::none(), py::arg("priority") = 0)
      .def(
          "submit_many",
          [](PipelineHandle& self, const py::list& xs, const NotifierHandle& notifier,
             const py::list& cookies, py::handle convert, std::optional<double> timeout,
             int priority) {
            return self.submit_many(xs, cookies, convert, {notifier.get(), {}, timeout, priority});
          },
          py::arg("xs"), py::arg("notifier"), py::arg("cookies"), py::arg("convert"),
          py::arg("timeout") = py::none(), py::arg("priority") = 0)
      .def("open_loop", &PipelineHandle::open_loop, py::arg("xs"), py::arg("convert"),
           py::arg("arrivals"), py::arg("waits_for_room") = false, py::arg("timeout") = py::none(),
           py::arg("priorities") = std::vector<int>{0})
      .def("infer_object", &PipelineHandle::infer_object, py::arg("inputs"),
           py::arg("timeout") = py::none(), py::arg("priority") = 0)
      .def(
          "submit_object",
          [](PipelineHandle& self, py::object inputs, const NotifierHandle& notifier,
             py::object cookie, std::optional<double> timeout, int priority) {
            return self.submit_object(std::move(inputs),
                                      {notifier.get(), std::move(cookie), timeout, priority});
          },
          py::arg("inputs"), py::arg("notifier"), py::arg("cookie"),
          py::arg("timeout") = py::none(), py::arg("priority") = 0)
      .def("claim", &PipelineHandle::claim, py::arg("rows"), py::arg("has_batch_axis"),
           py::arg("shapes"), py::arg("timeout") = py::none())
      .def("close", &PipelineHandle::close, py::arg("drain"))
      .def("trace_into", &PipelineHandle::trace_into)
      .def("stats", &PipelineHandle::stats)
      .def_property_readonly("streams", &PipelineHandle::streams)
      .def_property_readonly("max_batch_size", &PipelineHandle::max_batch_size)
      .def("time_batch", &PipelineHandle::time_batch, py::arg("rows"), py::arg("shapes"))
      .def("lead_briefly", &PipelineHandle::lead_briefly)
      .def_property_readonly("closed", &PipelineHandle::closed);

  m.def("live_objects", [] {
    py::dict result;
    result["requests"] = Request::alive();
    result["pipelines"] = Pipeline::alive();
    return result;
  });
  m.def("process_generation", &pipeline::process_generation);
  m.def("on_own_thread", &pipeline::on_own_thread);
}

}  // namespace trtinfer::bindings
