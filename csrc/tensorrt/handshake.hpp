#pragma once

#include "tensorrt/abi.hpp"
#include "tensorrt/logger.hpp"

namespace trtinfer::tensorrt {

/// Proves that a table fits a library before anything that could crash is called. Each function
/// throws Error, naming the first thing that does not fit.

/// A fresh IRuntime: its vtables, itself, our logger handed back, a number set and read again.
void check_runtime(const Abi& abi, void* runtime, Logger& logger);

/// A fresh IBuilder and an IBuilderConfig of it, likewise.
void check_builder(const Abi& abi, void* builder, Logger& logger);
void check_config(const Abi& abi, void* config);

/// The vtables of a fresh ICudaEngine, IExecutionContext, INetworkDefinition, IParser.
void check_engine(const Abi& abi, void* engine);
void check_context(const Abi& abi, void* context);
void check_network(const Abi& abi, void* network);
void check_parser(const Abi& abi, void* parser);

}  // namespace trtinfer::tensorrt
