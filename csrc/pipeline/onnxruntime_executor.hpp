#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "onnxruntime/model.hpp"
#include "pipeline/executor.hpp"
#include "preprocess/host.hpp"

namespace trtinfer::pipeline {

/// What the first axis of a model's tensors is.
enum class Batching {
  kNone,     ///< no batch axis: requests run one at a time, with whole tensors
  kDynamic,  ///< the first axis takes any size
  kFixed,    ///< the first axis has one size: smaller batches are padded
};

struct OnnxRuntimeExecutorOptions {
  Batching batching = Batching::kDynamic;
  std::uint32_t fixed_batch = 0;  ///< size of the first axis when kFixed
  std::uint32_t lanes = 1;
};

/// Runs batches with ONNX Runtime on the CPU. Neighbouring slots are handed over where they lie;
/// scattered ones are gathered first. With a preprocessor, the units are images (H, W, 3), uint8.
class OnnxRuntimeExecutor : public Executor {
 public:
  OnnxRuntimeExecutor(std::shared_ptr<const onnxruntime::Model> model,
                      std::shared_ptr<const preprocess::HostPreprocessor> preprocessor,
                      std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs,
                      const OnnxRuntimeExecutorOptions& options);

  TransferTimes run(const Batch& batch) override;
  std::uint64_t batch_key(const std::vector<Shape>& shapes) const override;
  std::string refusal(const std::vector<Shape>& shapes) const override {
    return preprocessor_ == nullptr ? std::string() : image_refusal(shapes.front());
  }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }

 private:
  /// Buffers and argument lists of one lane, reused from batch to batch.
  struct Lane {
    std::vector<std::vector<std::byte>> inputs, outputs;
    std::vector<onnxruntime::Value> input_values, output_values;
  };

  Shape batch_shape(const Batch& batch, std::size_t input) const;
  std::byte* contiguous(const Batch& batch, std::size_t input, std::size_t row_bytes) const;
  void gather(const Batch& batch, std::size_t input, std::size_t row_bytes, Lane& lane) const;
  void preprocess(const Batch& batch, Lane& lane) const;
  void place_inputs(const Batch& batch, Lane& lane) const;
  void place_outputs(const Batch& batch, Lane& lane) const;
  void check_rows(const Batch& batch, std::size_t output, const onnxruntime::Value& value) const;
  void scatter(const Batch& batch, std::size_t output, const onnxruntime::Value& value) const;
  void hand_over(Request& request, std::size_t output, onnxruntime::Value& value) const;
  std::uint32_t run_rows(const Batch& batch) const;

  std::shared_ptr<const onnxruntime::Model> model_;
  std::shared_ptr<const preprocess::HostPreprocessor> preprocessor_;
  std::vector<TensorSpec> inputs_, outputs_;  // of the model, without batch axis when batched
  OnnxRuntimeExecutorOptions options_;
  std::vector<Lane> lanes_;
};

}  // namespace trtinfer::pipeline
