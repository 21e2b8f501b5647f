#include "bindings/errors.hpp"

#include <cstdio>
#include <utility>

#include "bindings/device_tensor.hpp"
#include "bindings/register.hpp"
#include "cuda/error.hpp"
#include "pipeline/executor.hpp"
#include "pipeline/pipeline.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

namespace {

// The module trtinfer.errors, held for ever. Imported when ours is: an import runs Python code, in
// which a daemon thread may be ended as the interpreter ends, by unwinding our frames.
py::handle errors;

}  // namespace

py::object make_error(const char* name, const std::string& message) {
  return errors.attr(name)(message);
}

void set_error(const py::object& error) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
}

bool is_error(const py::object& error, const char* name) {
  return PyErr_GivenExceptionMatches(error.ptr(), errors.attr(name).ptr()) != 0;
}

void raise_error(const char* name, const std::string& message) {
  set_error(make_error(name, message));
  throw py::error_already_set();
}

py::object outcome_error(const pipeline::Request& request) {
  switch (request.outcome()) {
    case pipeline::Outcome::kExpired: {
      char text[96];
      std::snprintf(text, sizeof text, "the timeout of %.6g s, counted from arrival, ran out",
                    static_cast<double>(request.deadline - request.arrival) * 1e-9);
      return make_error("DeadlineExceededError", text);
    }
    case pipeline::Outcome::kCancelled:
      return py::module_::import("concurrent.futures").attr("CancelledError")();
    case pipeline::Outcome::kClosed:
      return make_error("ClosedError", "the session was closed before the request was launched");
    default:
      return make_error("BackendError", request.error());
  }
}

py::object exception_of(std::exception_ptr raised) {
  try {
    std::rethrow_exception(std::move(raised));
  } catch (const py::error_already_set& error) {
    return error.value();
  } catch (const pipeline::FullError& error) {
    return make_error("QueueFullError", error.what());
  } catch (const pipeline::ClosedError& error) {
    return make_error("ClosedError", error.what());
  } catch (const pipeline::UnfitError& error) {
    return make_error("InputError", error.what());
  } catch (const pipeline::BatchError& error) {
    return make_error("InputError", error.what());
  } catch (const UnreadableTensor& error) {
    return make_error("InputError", error.what());
  } catch (const cuda::Error& error) {
    return make_error("BackendError", error.what());
  } catch (...) {
    return {};
  }
}

std::shared_ptr<void> hold(py::object object) {
  return {object.release().ptr(),
          [](void* held) { with_gil([&] { Py_DECREF(static_cast<PyObject*>(held)); }); }};
}

void register_errors(py::module_&) {
  errors = py::module_::import("trtinfer.errors").release();
  py::register_local_exception_translator([](std::exception_ptr raised) {
    const py::object error = exception_of(raised);
    if (!error) std::rethrow_exception(raised);
    set_error(error);
  });
}

}  // namespace trtinfer::bindings
