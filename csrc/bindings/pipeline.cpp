// Python face of csrc/pipeline.
#include "pipeline/pipeline.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/errors.hpp"
#include "bindings/layout.hpp"
#include "bindings/notifier.hpp"
#include "bindings/object_executor.hpp"
#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"
#include "onnxruntime/model.hpp"
#include "pipeline/onnxruntime_executor.hpp"
#include "pipeline/own_thread.hpp"
#include "pipeline/process.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

using pipeline::Batching;
using pipeline::Claim;
using pipeline::ElementType;
using pipeline::Executor;
using pipeline::Outcome;
using pipeline::Pipeline;
using pipeline::Request;
using pipeline::Shape;
using ring::kNever;
using ring::Nanoseconds;

namespace {

// (name, element type as in ONNX, dtype, shape): what Python says of a tensor.
using TensorTuple = std::tuple<py::str, int, py::dtype, Shape>;

Nanoseconds deadline_from(Nanoseconds arrival, std::optional<double> timeout) {
  if (!timeout) return kNever;
  const double limit = static_cast<double>(kNever - arrival) * 1e-9;
  if (*timeout >= limit) return kNever;
  return arrival + static_cast<Nanoseconds>(std::max(*timeout, 0.0) * 1e9);
}

std::shared_ptr<Pipeline> make_pipeline(std::shared_ptr<Executor> executor,
                                        std::vector<pipeline::TensorSpec> inputs,
                                        const ring::RingOptions& options) {
  // A lane may want the GIL to finish its batch, so it is never held while the pipeline ends.
  const auto destroy = [](Pipeline* pipeline) {
    if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) {
      const Unlocked unlocked;
      delete pipeline;
    } else {
      delete pipeline;
    }
  };
  return {new Pipeline(std::move(executor), std::move(inputs), options), destroy};
}

/// A request that Python holds on to while it is under way.
struct PendingRequest {
  std::shared_ptr<Pipeline> pipeline;
  std::shared_ptr<Request> request;

  bool cancel() const { return pipeline->cancel(request); }
  bool running() const { return request->launched && !request->done(); }
};

/// What publishing needs beside the inputs. Without a notifier the caller waits for the answer.
struct Delivery {
  std::shared_ptr<pipeline::Notifier> notifier;
  py::object cookie;
  std::optional<double> timeout;
  int priority = 0;
  bool on_loop = false;  ///< from an event loop: never wait for room, and leave waking to `wake`
};

class PipelineHandle;

/// A claimed unit in Python's hands.
class ClaimHandle {
 public:
  ClaimHandle(std::shared_ptr<Pipeline> pipeline, std::shared_ptr<const Layout> layout,
              Claim claim, bool has_batch_axis)
      : pipeline_(std::move(pipeline)),
        layout_(std::move(layout)),
        claim_(std::move(claim)),
        has_batch_axis_(has_batch_axis) {}

  py::dict inputs() const {
    check_held();
    return layout_->views(pipeline_, claim_, has_batch_axis_);
  }

  PendingRequest submit(const Delivery& delivery) {
    const std::shared_ptr<Request> request = publish(delivery, true);
    if (request->deadline != kNever) pipeline_->watch_deadline(request);
    return {pipeline_, request};
  }

  py::dict infer(const Delivery& delivery) {
    const std::shared_ptr<Request> request = publish(delivery, false);
    return wait(pipeline_, *layout_, request);
  }

  static py::dict wait(const std::shared_ptr<Pipeline>& pipeline, const Layout& layout,
                       const std::shared_ptr<Request>& request) {
    {
      const Unlocked unlocked;
      pipeline->wait(request);
    }
    if (request->outcome() != Outcome::kCompleted) {
      set_error(outcome_error(*request));
      throw py::error_already_set();
    }
    return layout.outputs(*request);
  }

  void release() { claim_.release(); }
  bool held() const { return claim_.held(); }

 private:
  void check_held() const {
    if (!claim_.held()) {
      raise_error("InputError", "the slot was already published or released: claim another one");
    }
  }

  std::shared_ptr<Request> publish(const Delivery& delivery, bool wake) {
    check_held();
    auto request = pipeline_->make_request(claim_.rows(), has_batch_axis_);
    request->deadline = deadline_from(request->arrival, delivery.timeout);
    request->notifier = delivery.notifier;
    if (delivery.notifier) {
      request->cookie = NotifierHandle::make_cookie(delivery.cookie, layout_);
    }
    pipeline_->publish(std::move(claim_), request, 0, delivery.priority, wake);
    return request;
  }

  std::shared_ptr<Pipeline> pipeline_;
  std::shared_ptr<const Layout> layout_;
  Claim claim_;
  bool has_batch_axis_;
};

/// A pipeline and the layout of its tensors.
class PipelineHandle {
 public:
  PipelineHandle(std::shared_ptr<Pipeline> pipeline, std::shared_ptr<const Layout> layout)
      : pipeline_(std::move(pipeline)), layout_(std::move(layout)) {}

  py::object infer(py::handle x, std::optional<double> timeout, int priority) {
    ParsedInputs parsed;
    if (!layout_->match(x, parsed)) return py::none();
    const std::shared_ptr<Request> request = make_request(parsed, timeout);
    publish_in_turn(parsed, request, timeout ? request->deadline : 0, priority, false);
    return ClaimHandle::wait(pipeline_, *layout_, request);
  }

  py::object submit(py::handle x, const Delivery& delivery) {
    ParsedInputs parsed;
    if (!layout_->match(x, parsed)) return py::none();
    const std::shared_ptr<Request> request = make_request(parsed, delivery.timeout);
    request->notifier = delivery.notifier;
    request->cookie = NotifierHandle::make_cookie(delivery.cookie, layout_);
    if (delivery.timeout && !delivery.on_loop) {
      publish_in_turn(parsed, request, request->deadline, delivery.priority, true);
    } else {
      publish_at_once(parsed, request, delivery);
    }
    if (request->deadline != kNever) pipeline_->watch_deadline(request);
    return py::cast(PendingRequest{pipeline_, request});
  }

  ClaimHandle claim(std::uint32_t rows, bool has_batch_axis, const std::vector<Shape>& shapes,
                    std::optional<double> timeout) {
    return {pipeline_, layout_,
            claim_rows(rows, shapes, timeout ? deadline_from(ring::now(), timeout) : 0),
            has_batch_axis};
  }

  py::object infer_object(py::object inputs, std::optional<double> timeout, int priority) {
    const std::shared_ptr<Request> request =
        publish_object(std::move(inputs), {nullptr, py::none(), timeout, priority});
    ClaimHandle::wait(pipeline_, *layout_, request);
    return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(request->payload.get()));
  }

  PendingRequest submit_object(py::object inputs, const Delivery& delivery) {
    const std::shared_ptr<Request> request = publish_object(std::move(inputs), delivery);
    if (request->deadline != kNever) pipeline_->watch_deadline(request);
    return {pipeline_, request};
  }

  void close(bool drain) {
    const Unlocked unlocked;
    pipeline_->close(drain);
  }

  bool closed() const { return pipeline_->closed(); }
  void wake() { pipeline_->wake(); }
  py::dict stats() const;

 private:
  std::shared_ptr<Request> make_request(const ParsedInputs& parsed,
                                        std::optional<double> timeout) {
    const std::uint32_t max = pipeline_->max_batch_size();
    auto request = pipeline_->make_request(parsed.rows, parsed.has_batch_axis);
    request->deadline = deadline_from(request->arrival, timeout);
    request->units_left = (parsed.rows + max - 1) / max;
    request->units.reserve(request->units_left);
    return request;
  }

  // All parts find room now, or none is published. No claim is held while waiting for another: two
  // large requests that did would wait for each other.
  void publish_at_once(const ParsedInputs& parsed, const std::shared_ptr<Request>& request,
                       const Delivery& delivery) {
    std::vector<Claim> claims;
    const std::uint32_t max = pipeline_->max_batch_size();
    for (std::uint32_t first = 0; first < parsed.rows; first += max) {
      claims.push_back(delivery.timeout ? claim_part_on_loop(parsed, first)
                                        : claim_part(parsed, first, 0));
      layout_->fill(parsed, first, claims.back());
    }
    for (std::size_t i = 0; i < claims.size(); ++i) {
      const auto first = static_cast<std::uint32_t>(i) * max;
      try {
        pipeline_->publish(std::move(claims[i]), request, first, delivery.priority,
                           !delivery.on_loop);
      } catch (const pipeline::ClosedError&) {
        if (i > 0) pipeline_->abandon(request, Outcome::kClosed);
        throw;
      }
    }
  }

  // The first part waits for room until then; with `wake`, nobody leads the batch of a lone part.
  void publish_in_turn(const ParsedInputs& parsed, const std::shared_ptr<Request>& request,
                       Nanoseconds until, int priority, bool wake) {
    Claim claim = claim_part(parsed, 0, until);
    layout_->fill(parsed, 0, claim);
    const bool has_more = parsed.rows > pipeline_->max_batch_size();
    pipeline_->publish(std::move(claim), request, 0, priority, wake || has_more);
    if (has_more) publish_rest(parsed, request, priority);
  }

  // The parts of a large request wait for room, since it frees itself as they run.
  void publish_rest(const ParsedInputs& parsed, const std::shared_ptr<Request>& request,
                    int priority) {
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
    }
  }

  Claim claim_part(const ParsedInputs& parsed, std::uint32_t first, Nanoseconds until) {
    const std::uint32_t rows = std::min(pipeline_->max_batch_size(), parsed.rows - first);
    if (pipeline_->memory().is_static()) return claim_rows(rows, {}, until);
    return claim_rows(rows, layout_->unit_shapes(parsed, rows), until);
  }

  // A refusal that is not counted.
  std::optional<Claim> try_claim_part(const ParsedInputs& parsed, std::uint32_t first,
                                      Nanoseconds until) {
    const std::uint32_t rows = std::min(pipeline_->max_batch_size(), parsed.rows - first);
    std::vector<Shape> shapes;
    if (!pipeline_->memory().is_static()) shapes = layout_->unit_shapes(parsed, rows);
    std::optional<Claim> claim = pipeline_->try_claim(rows, shapes);
    if (claim || until == 0) return claim;
    const Unlocked unlocked;
    return pipeline_->try_claim(rows, shapes, until);
  }

  // For an event loop: it comes again off the loop if there is no room, so that is no refusal yet.
  Claim claim_part_on_loop(const ParsedInputs& parsed, std::uint32_t first) {
    std::optional<Claim> claim = try_claim_part(parsed, first, 0);
    if (!claim) throw pipeline::FullError("no room for the request now");
    return std::move(*claim);
  }

  Claim claim_rows(std::uint32_t rows, const std::vector<Shape>& shapes, Nanoseconds until) {
    std::optional<Claim> claim = pipeline_->try_claim(rows, shapes);
    if (claim) return std::move(*claim);
    const Unlocked unlocked;
    return pipeline_->claim(rows, shapes, until);
  }

  std::shared_ptr<Request> publish_object(py::object inputs, const Delivery& delivery) {
    auto request = pipeline_->make_request(1, false);
    request->deadline = deadline_from(request->arrival, delivery.timeout);
    request->payload = hold(std::move(inputs));
    request->notifier = delivery.notifier;
    if (delivery.notifier) {
      request->cookie = NotifierHandle::make_cookie(delivery.cookie, nullptr);
    }
    Claim claim = claim_rows(1, {}, delivery.timeout ? request->deadline : 0);
    pipeline_->publish(std::move(claim), request, 0, delivery.priority, true);
    return request;
  }

  std::shared_ptr<Pipeline> pipeline_;
  std::shared_ptr<const Layout> layout_;
};

py::dict quantiles(const pipeline::Histogram& histogram) {
  const std::uint64_t count = histogram.count();
  py::dict result;
  result["count"] = count;
  result["mean"] = count == 0 ? 0.0
                              : static_cast<double>(histogram.sum()) * 1e-9 /
                                    static_cast<double>(count);
  for (const auto& [name, quantile] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99},
                                       {"p99.9", 0.999}, {"max", 1.0}}) {
    result[name] = static_cast<double>(histogram.quantile(quantile)) * 1e-9;
  }
  return result;
}

py::dict PipelineHandle::stats() const {
  pipeline::Stats& stats = pipeline_->stats();
  const ring::Occupancy occupancy = pipeline_->occupancy();
  py::dict result;
  for (const auto& [name, counter] :
       {std::pair{"accepted", &stats.accepted}, {"completed", &stats.completed},
        {"failed", &stats.failed}, {"expired", &stats.expired}, {"cancelled", &stats.cancelled},
        {"closed", &stats.closed}, {"rejected", &stats.rejected}, {"batches", &stats.batches},
        {"samples", &stats.samples}, {"retried", &stats.retried}}) {
    result[name] = counter->load();
  }
  result["queue_length"] = occupancy.published;
  result["free_slots"] = occupancy.free;
  result["batches_in_flight"] = occupancy.lanes_busy;
  py::dict sizes, compute;
  for (std::size_t size = 1; size < stats.batch_sizes.size(); ++size) {
    if (const std::uint64_t count = stats.batch_sizes[size].load()) sizes[py::int_(size)] = count;
    const bool last_of_bucket = size + 1 == stats.batch_sizes.size() ||
                                stats.batch_compute[size] != stats.batch_compute[size + 1];
    if (last_of_bucket && stats.batch_compute[size]->count() > 0) {
      compute[py::int_(size)] = quantiles(*stats.batch_compute[size]);
    }
  }
  result["batch_sizes"] = sizes;
  result["batch_compute"] = compute;
  result["queue"] = quantiles(stats.queue);
  result["compute"] = quantiles(stats.compute);
  result["total"] = quantiles(stats.total);
  return result;
}

std::vector<Layout::Tensor> make_tensors(const std::vector<TensorTuple>& tuples) {
  std::vector<Layout::Tensor> tensors;
  for (const auto& [name, type, dtype, shape] : tuples) {
    tensors.push_back({{name.cast<std::string>(), static_cast<ElementType>(type), shape},
                       py::reinterpret_steal<py::str>(PyUnicode_FromObject(name.ptr())),
                       dtype});
  }
  return tensors;
}

std::vector<pipeline::TensorSpec> specs_of(const std::vector<Layout::Tensor>& tensors) {
  std::vector<pipeline::TensorSpec> specs;
  for (const Layout::Tensor& tensor : tensors) specs.push_back(tensor.spec);
  return specs;
}

ring::RingOptions ring_options(const py::kwargs& options) {
  ring::RingOptions result;
  result.capacity = options["capacity"].cast<std::uint32_t>();
  result.arena_bytes = options["arena_bytes"].cast<std::uint64_t>();
  result.lanes = options["lanes"].cast<std::uint32_t>();
  result.max_batch_size = options["max_batch_size"].cast<std::uint32_t>();
  result.merge_limit = options["merge_limit"].cast<std::uint32_t>();
  result.max_delay = static_cast<Nanoseconds>(options["max_delay"].cast<double>() * 1e9);
  return result;
}

/// A pipeline over ONNX Runtime. `requests` are the tensors that requests bring (an image of any size
/// when there is a preprocessor), `model_inputs` what the model reads.
PipelineHandle open_onnxruntime(
    const std::shared_ptr<onnxruntime::Model>& model,
    const std::shared_ptr<preprocess::HostPreprocessor>& preprocessor,
    const std::vector<TensorTuple>& requests, const std::vector<TensorTuple>& model_inputs,
    const std::vector<TensorTuple>& outputs, std::uint32_t fixed_batch, bool batched,
    const py::kwargs& options) {
  const ring::RingOptions sizes = ring_options(options);
  pipeline::OnnxRuntimeExecutorOptions executor_options;
  executor_options.batching = !batched          ? Batching::kNone
                              : fixed_batch > 0 ? Batching::kFixed
                                                : Batching::kDynamic;
  executor_options.fixed_batch = fixed_batch;
  executor_options.lanes = sizes.lanes;
  executor_options.max_batch_size = sizes.max_batch_size;
  std::vector<Layout::Tensor> input_tensors = make_tensors(requests);
  std::vector<Layout::Tensor> output_tensors = make_tensors(outputs);
  auto executor = std::make_shared<pipeline::OnnxRuntimeExecutor>(
      model, preprocessor, specs_of(make_tensors(model_inputs)), specs_of(output_tensors),
      executor_options);
  auto native = make_pipeline(std::move(executor), specs_of(input_tensors), sizes);
  const bool rows = batched && preprocessor == nullptr;
  auto layout =
      std::make_shared<const Layout>(std::move(input_tensors), std::move(output_tensors), rows);
  return {std::move(native), std::move(layout)};
}

PipelineHandle open_objects(py::object function, const py::kwargs& options) {
  auto executor = std::make_shared<ObjectExecutor>(std::move(function));
  return {make_pipeline(std::move(executor), {}, ring_options(options)),
          std::make_shared<const Layout>(std::vector<Layout::Tensor>{},
                                         std::vector<Layout::Tensor>{}, false)};
}

}  // namespace

void register_pipeline(py::module_& m) {
  py::class_<PendingRequest>(m, "PendingRequest")
      .def("cancel", &PendingRequest::cancel)
      .def_property_readonly("running", &PendingRequest::running);

  py::class_<ClaimHandle>(m, "Claim")
      .def_property_readonly("inputs", &ClaimHandle::inputs)
      .def_property_readonly("held", &ClaimHandle::held)
      .def("release", &ClaimHandle::release)
      .def(
          "submit",
          [](ClaimHandle& self, const NotifierHandle& notifier, py::object cookie,
             std::optional<double> timeout, int priority) {
            return self.submit({notifier.get(), std::move(cookie), timeout, priority});
          },
          py::arg("notifier"), py::arg("cookie"), py::arg("timeout") = py::none(),
          py::arg("priority") = 0)
      .def(
          "infer",
          [](ClaimHandle& self, std::optional<double> timeout, int priority) {
            return self.infer({nullptr, py::none(), timeout, priority});
          },
          py::arg("timeout") = py::none(), py::arg("priority") = 0);

  py::class_<PipelineHandle>(m, "Pipeline")
      .def_static("onnxruntime", &open_onnxruntime)
      .def_static("objects", &open_objects)
      .def("infer", &PipelineHandle::infer, py::arg("x"), py::arg("timeout") = py::none(),
           py::arg("priority") = 0)
      .def(
          "submit",
          [](PipelineHandle& self, py::handle x, const NotifierHandle& notifier, py::object cookie,
             std::optional<double> timeout, int priority, bool on_loop) {
            return self.submit(x,
                               {notifier.get(), std::move(cookie), timeout, priority, on_loop});
          },
          py::arg("x"), py::arg("notifier"), py::arg("cookie"), py::arg("timeout") = py::none(),
          py::arg("priority") = 0, py::arg("on_loop") = false)
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
      .def("stats", &PipelineHandle::stats)
      .def("wake", &PipelineHandle::wake)
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
