#include "onnxruntime/api.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace trtinfer::onnxruntime {
namespace {

/// What OrtGetApiBase returns.
struct ApiBase {
  void* const* (*get_api)(std::uint32_t version);
  const char* (*get_version_string)();
};

constexpr int kLogErrors = 3;

/// ONNX Runtime's threads do not exist in a forked child, and its static destructors wait for one
/// of them for ever (seen in 1.32): a child leaves before they run.
void leave_child(int status, void*) {
  std::fflush(nullptr);
  ::_exit(status);
}

}  // namespace

Api::Api(const std::string& path) : path_(path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(std::string("cannot load ") + ::dlerror());
  auto get_base = reinterpret_cast<const ApiBase* (*)()>(::dlsym(library, "OrtGetApiBase"));
  if (get_base == nullptr) throw std::runtime_error(path + " is not an ONNX Runtime library");
  const ApiBase* base = get_base();
  version_ = base->get_version_string();
  table_ = base->get_api(kApiVersion);
  if (table_ == nullptr) {
    throw std::runtime_error("ONNX Runtime " + version_ + " is too old: 1.11 or newer is needed");
  }
  call(Entry::kCreateEnv, kLogErrors, "trtinfer", &environment_);
  ::pthread_atfork(nullptr, nullptr, [] { ::on_exit(leave_child, nullptr); });
}

const Api& Api::load(const std::string& path) {
  static const Api* const api = new Api(path);  // outlives every thread, so it is never freed
  if (api->path_ != path) {
    throw std::runtime_error("ONNX Runtime is already loaded from " + api->path_ + "; " + path +
                             " cannot be loaded beside it");
  }
  return *api;
}

void Api::check(Status* status) const {
  if (status == nullptr) return;
  std::string message = entry<const char* (*)(Status*)>(Entry::kGetErrorMessage)(status);
  entry<void (*)(Status*)>(Entry::kReleaseStatus)(status);
  throw std::runtime_error(message);
}

}  // namespace trtinfer::onnxruntime
