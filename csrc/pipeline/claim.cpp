#include <utility>

#include "pipeline/pipeline.hpp"
#include "pipeline/process.hpp"

namespace trtinfer::pipeline {

Claim::Claim(std::shared_ptr<Pipeline> pipeline, ring::Unit unit)
    : pipeline_(std::move(pipeline)), unit_(unit) {}

Claim::Claim(Claim&& other) noexcept : pipeline_(std::move(other.pipeline_)), unit_(other.unit_) {}

Claim& Claim::operator=(Claim&& other) noexcept {
  if (this != &other) {
    release();
    pipeline_ = std::move(other.pipeline_);
    unit_ = other.unit_;
  }
  return *this;
}

void Claim::release() {
  if (pipeline_ == nullptr) return;
  const std::shared_ptr<Pipeline> pipeline = std::move(pipeline_);
  if (pipeline->process_generation_ == process_generation()) pipeline->ring_.release(unit_);
}

const std::vector<std::byte*>& Claim::inputs() const {
  return pipeline_->records_[unit_.slot].inputs;
}

SlotFill Claim::filling(std::size_t input, const std::byte* from, std::size_t bytes) const {
  return {inputs()[input], from, bytes, pipeline_->memory_.stores()};
}

void Claim::fill(std::vector<DeviceInput> inputs) {
  Pipeline::UnitRecord& record = pipeline_->records_[unit_.slot];
  if (pipeline_->reads_device_inputs()) {
    record.device_inputs = std::move(inputs);
    pipeline_->slowest_lately_ = Pipeline::kSlow;  // no event loop waits for other libraries' work
    return;
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].data != nullptr) fetch(inputs[i], record.inputs[i]);
  }
}

const std::vector<Shape>& Claim::shapes() const { return pipeline_->records_[unit_.slot].shapes; }

}  // namespace trtinfer::pipeline
