#include "tensorrt/runtime_cache.hpp"

#include "tensorrt/error.hpp"

namespace trtinfer::tensorrt {
namespace {

Object create_config(const Engine& engine) {
  const Library& library = engine.library();
  if (!library.is_rtx()) {
    throw Error("only TensorRT-RTX has a runtime cache; this is TensorRT " +
                library.version_text());
  }
  const std::uint64_t mark = library.logger().mark();
  void* config = library.abi().engine.create_runtime_config(engine.interface());
  if (config == nullptr) {
    throw Error(library.logger().explain("TensorRT gives no runtime configuration", mark));
  }
  return {config, Destroy{engine.device()}};
}

Object create_cache(const Engine& engine) {
  const Object config = create_config(engine);
  const Library& library = engine.library();
  const std::uint64_t mark = library.logger().mark();
  void* cache = library.abi().runtime_config.create_cache(config.get());
  if (cache == nullptr) {
    throw Error(library.logger().explain("TensorRT-RTX gives no runtime cache", mark));
  }
  return {cache, Destroy{engine.device()}};
}

}  // namespace

RuntimeCache::RuntimeCache(const Engine& engine)
    : library_(engine.library()), cache_(create_cache(engine)) {}

bool RuntimeCache::deserialize(std::span<const std::byte> bytes) {
  const RuntimeCacheMethods& call = library_.abi().runtime_cache;
  return !bytes.empty() && call.deserialize(cache_.get(), bytes.data(), bytes.size());
}

HostMemory RuntimeCache::serialize() const {
  const std::uint64_t mark = library_.logger().mark();
  void* memory = library_.abi().runtime_cache.serialize(cache_.get());
  if (memory == nullptr) {
    throw Error(library_.logger().explain("the runtime cache cannot be serialized", mark));
  }
  return {library_.abi(), Object(memory)};
}

}  // namespace trtinfer::tensorrt
