#pragma once

#include <optional>
#include <string>

#include "tensorrt/abi.hpp"
#include "tensorrt/logger.hpp"
#include "tensorrt/object.hpp"

namespace trtinfer::tensorrt {

/// Where a library is, and what is assumed about it.
struct LibraryPath {
  std::string library;  // path, or a name for the system loader
  std::string parser;   // libnvonnxparser or its RTX sibling; empty: plans can be run, not built
  std::optional<Family> family;  // instead of what the version says; the handshake then decides
};

/// A TensorRT library that proved to speak the interface known for its version. Stays loaded until
/// the process ends, as TensorRT requires of the logger that it was given. Thread-safe.
class Library {
 public:
  /// Loads it at the first call for a path; later calls return the same. Throws Error when it
  /// cannot be loaded, is of an unknown version, needs a driver that is not there, or fails the
  /// handshake.
  static const Library& load(const LibraryPath& where);

  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const std::string& path() const { return where_.library; }
  int version() const { return version_; }
  std::string version_text() const;
  bool is_rtx() const { return abi_.family == Family::kRtx1; }
  bool can_build() const { return create_builder_ != nullptr && create_parser_ != nullptr; }
  /// Why can_build() is false.
  const std::string& build_reason() const { return build_reason_; }

  const Abi& abi() const { return abi_; }
  Logger& logger() const { return *logger_; }

  /// New objects, checked; they throw Error with the logger's words.
  Object create_runtime() const;
  Object create_builder() const;
  ParserObject create_parser(void* network) const;

 private:
  using CreateWithLogger = void* (*)(void* logger, std::int32_t version);
  using CreateParser = void* (*)(void* network, void* logger, std::int32_t version);

  explicit Library(LibraryPath where);
  void identify();
  void load_parser();

  LibraryPath where_;
  void* handle_ = nullptr;
  int version_ = 0, parser_version_ = 0;
  Abi abi_{};
  Logger* logger_ = nullptr;  // never freed: TensorRT keeps it, also after a refusal
  CreateWithLogger create_runtime_ = nullptr, create_builder_ = nullptr;
  CreateParser create_parser_ = nullptr;
  std::string build_reason_;
};

/// "1.6.1" of 10601, "10.13.3" of 101303, "8.6.1" of 8601.
std::string version_text(int version);

}  // namespace trtinfer::tensorrt
