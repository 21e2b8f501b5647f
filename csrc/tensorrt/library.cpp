#include "tensorrt/library.hpp"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <utility>

#include "tensorrt/driver.hpp"
#include "tensorrt/error.hpp"
#include "tensorrt/handshake.hpp"

namespace trtinfer::tensorrt {
namespace {

constexpr const char* kKnown = "TensorRT 10 and 11 and TensorRT-RTX 1.5 to 1.7 are known";

// Exported by TensorRT-RTX only.
constexpr const char* kRtxExport = "setInternalLibraryPath";

void* open(const std::string& path) {
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Error(std::string("cannot load ") + ::dlerror());
  return handle;
}

template <typename Function>
Function find(void* handle, const char* name) {
  return reinterpret_cast<Function>(::dlsym(handle, name));
}

}  // namespace

std::string version_text(int version) {
  // Until release 9 the major number was counted in thousands.
  const int major = version < 10000 ? 1000 : 10000;
  return std::to_string(version / major) + "." + std::to_string(version % major / 100) + "." +
         std::to_string(version % 100);
}

const Library& Library::load(const LibraryPath& where) {
  static std::mutex mutex;
  static auto& loaded = *new std::map<std::pair<std::string, std::string>, const Library*>;
  const std::lock_guard lock(mutex);
  const Library*& library = loaded[{where.library, where.parser}];
  if (library == nullptr || where.family) library = new Library(where);
  return *library;
}

Library::Library(LibraryPath where) : where_(std::move(where)), handle_(open(where_.library)) {
  try {
    identify();
  } catch (const Error&) {
    ::dlclose(handle_);  // else a parser loaded later could take its symbols from here
    throw;
  }
  create_runtime();
  // The runtimes of TensorRT 11 and TensorRT-RTX are alike; this tells them apart.
  const bool exports_rtx = find<void*>(handle_, kRtxExport) != nullptr;
  if (exports_rtx != is_rtx()) {
    throw Error(path() + " is " + (exports_rtx ? "" : "not ") + "TensorRT-RTX, but is taken for " +
                family_name(abi_.family));
  }
  load_parser();
}

void Library::identify() {
  const auto get_version = find<std::int32_t (*)()>(handle_, "getInferLibVersion");
  if (get_version == nullptr) throw Error(path() + " is not TensorRT: no getInferLibVersion");
  version_ = get_version();
  const auto family = where_.family ? where_.family : family_of(version_);
  if (!family) {
    throw Error("TensorRT " + version_text() + " at " + path() + " is of an unknown release; " +
                kKnown);
  }
  if (find<void*>(handle_, kRtxExport) == nullptr && !driver().usable) {
    throw Error("TensorRT " + version_text() + " needs a GPU: " + driver().reason);
  }
  create_runtime_ = find<CreateWithLogger>(handle_, "createInferRuntime_INTERNAL");
  create_builder_ = find<CreateWithLogger>(handle_, "createInferBuilder_INTERNAL");
  if (create_runtime_ == nullptr) throw Error(path() + " has no createInferRuntime_INTERNAL");
  abi_ = abi_of(*family, version_);
  logger_ = new Logger(abi_.callbacks);
}

void Library::load_parser() {
  if (create_builder_ == nullptr) {
    build_reason_ = path() + " has no builder: it is a lean or dispatch runtime";
    return;
  }
  if (where_.parser.empty()) {
    build_reason_ = "no ONNX parser was found beside " + path();
    return;
  }
  void* parser = ::dlopen(where_.parser.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (parser == nullptr) {
    build_reason_ = std::string("cannot load ") + ::dlerror();
    return;
  }
  create_parser_ = find<CreateParser>(parser, "createNvOnnxParser_INTERNAL");
  const auto get_version = find<std::int32_t (*)()>(parser, "getNvOnnxParserVersion");
  if (create_parser_ == nullptr || get_version == nullptr) {
    create_parser_ = nullptr;
    build_reason_ = where_.parser + " is not an ONNX parser of TensorRT";
    return;
  }
  parser_version_ = get_version();
}

std::string Library::version_text() const { return tensorrt::version_text(version_); }

Object Library::create_runtime() const {
  const std::uint64_t mark = logger_->mark();
  void* runtime = create_runtime_(logger_->interface(), version_);
  if (runtime == nullptr) {
    throw Error(logger_->explain("TensorRT " + version_text() + " gives no runtime", mark));
  }
  check_runtime(abi_, runtime, *logger_);
  return Object(runtime);
}

Object Library::create_builder() const {
  if (!can_build()) throw Error("no plan can be built: " + build_reason_);
  const std::uint64_t mark = logger_->mark();
  void* builder = create_builder_(logger_->interface(), version_);
  if (builder == nullptr) {
    throw Error(logger_->explain("TensorRT " + version_text() + " gives no builder", mark));
  }
  check_builder(abi_, builder, *logger_);
  return Object(builder);
}

ParserObject Library::create_parser(void* network) const {
  const std::uint64_t mark = logger_->mark();
  void* parser = create_parser_(network, logger_->interface(), parser_version_);
  if (parser == nullptr) {
    throw Error(logger_->explain("TensorRT " + version_text() + " gives no ONNX parser", mark));
  }
  check_parser(abi_, parser);
  return ParserObject(parser, DestroyParser{abi_.parser.destroy});
}

}  // namespace trtinfer::tensorrt
