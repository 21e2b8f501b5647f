// A backend that adds one to rows of two floats, slowly or not at all where it is told to.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "check.hpp"
#include "pipeline/pipeline.hpp"

namespace trtinfer::pipeline {

constexpr std::size_t kWidth = 2, kRowBytes = kWidth * sizeof(float);

/// A row that begins with this makes its batch throw.
constexpr float kBad = -1;

class AddOne : public Executor {
 public:
  // With `shape_known`, outputs are allocated ahead of the run, else by the first part that runs.
  explicit AddOne(bool shape_known = true)
      : outputs_{{"y", ElementType::kFloat32, {shape_known ? std::int64_t{kWidth} : -1}}} {}

  TransferTimes run(const Batch& batch) override {
    const int running = ++running_;
    for (int seen = most_running;
         running > seen && !most_running.compare_exchange_weak(seen, running);) {
    }
    last_thread = std::this_thread::get_id();
    wait_for_gate();
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    --running_;
    for (const BatchUnit& unit : batch.units) check(unit);
    for (const BatchUnit& unit : batch.units) answer(unit);
    return transfers;
  }

  std::uint64_t batch_key(const std::vector<Shape>&) const override { return 0; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }

  /// Batches that start while the gate is closed wait until it opens.
  void close_gate() { set_gate(false); }
  void open_gate() { set_gate(true); }

  /// Waits until this many batches are running.
  void wait_until_running(int count) const {
    while (running_ != count) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }

  std::chrono::microseconds delay{0};
  TransferTimes transfers;  // as if it had taken so long
  std::atomic<int> most_running{0};
  std::atomic<std::thread::id> last_thread{};

 private:
  void set_gate(bool open) {
    {
      const std::lock_guard lock(mutex_);
      open_ = open;
    }
    changed_.notify_all();
  }

  void wait_for_gate() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

  static void check(const BatchUnit& unit) {
    const auto* from = reinterpret_cast<const float*>((*unit.inputs)[0]);
    for (std::uint32_t row = 0; row < unit.rows; ++row) {
      if (from[row * kWidth] == kBad) throw ExecutionError("a bad row");
    }
  }

  void answer(const BatchUnit& unit) const {
    std::byte* memory = unit.request->output(0, outputs_[0], {kWidth}, true);
    CHECK(memory != nullptr);
    auto* to = reinterpret_cast<float*>(memory) + unit.first_row * kWidth;
    const auto* from = reinterpret_cast<const float*>((*unit.inputs)[0]);
    for (std::size_t i = 0; i < unit.rows * kWidth; ++i) to[i] = from[i] + 1;
  }

  const std::vector<TensorSpec> outputs_;
  std::atomic<int> running_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
};

/// A pipeline over AddOne, and the steps of a request as a caller takes them.
struct AddOnePipeline {
  std::shared_ptr<AddOne> executor;
  std::shared_ptr<Pipeline> pipeline;

  explicit AddOnePipeline(const ring::RingOptions& options, bool shape_known = true)
      : AddOnePipeline(options, std::make_shared<AddOne>(shape_known), nullptr) {}

  /// Batches run on `runs`, which is made of `own`; null: on `own` itself.
  AddOnePipeline(const ring::RingOptions& options, std::shared_ptr<AddOne> own,
                 std::shared_ptr<Executor> runs, std::shared_ptr<LatencyPolicy> policy = nullptr)
      : executor(std::move(own)),
        pipeline(std::make_shared<Pipeline>(
            runs != nullptr ? std::move(runs) : executor,
            std::vector<TensorSpec>{{"x", ElementType::kFloat32, {kWidth}}}, options,
            std::move(policy))) {}

  /// A request of rows (value, value + 1), (value + 1, value + 2), …, split where it must be.
  /// Without a notifier the caller has to wait for it.
  std::shared_ptr<Request> publish(float value, std::uint32_t rows = 1,
                                   std::shared_ptr<Notifier> notifier = nullptr,
                                   ring::Nanoseconds timeout = ring::kNever) const {
    const std::uint32_t max = pipeline->max_batch_size();
    std::vector<Claim> claims;
    for (std::uint32_t first = 0; first < rows; first += max) {
      claims.push_back(pipeline->claim(std::min(max, rows - first), {}, 0));
      fill(claims.back(), value + static_cast<float>(first));
    }
    const bool wake = notifier != nullptr;
    auto request = pipeline->make_request(rows, true);
    if (timeout != ring::kNever) request->deadline = request->arrival + timeout;
    request->units_left = static_cast<std::uint32_t>(claims.size());
    request->units.reserve(claims.size());
    request->notifier = std::move(notifier);
    for (std::uint32_t i = 0; i < claims.size(); ++i) {
      try {
        pipeline->publish(std::move(claims[i]), request, i * max, 0, wake);
      } catch (const ClosedError&) {
        if (i == 0) throw;
        pipeline->abandon(request, Outcome::kClosed);
        return request;
      }
    }
    if (wake && timeout != ring::kNever) pipeline->watch_deadline(request);
    return request;
  }

  std::shared_ptr<Request> infer(float value, std::uint32_t rows = 1,
                                 ring::Nanoseconds timeout = ring::kNever) const {
    auto request = publish(value, rows, nullptr, timeout);
    pipeline->wait(request);
    return request;
  }

  static void fill(const Claim& claim, float value) {
    auto* to = reinterpret_cast<float*>(claim.inputs()[0]);
    for (std::size_t i = 0; i < claim.rows() * kWidth; ++i) {
      to[i] = value + static_cast<float>(i / kWidth + i % kWidth);
    }
  }
};

/// Whether a completed request has the answer to `publish(value, rows)`.
inline bool is_answer(const Request& request, float value) {
  const OutputTensor& output = request.outputs[0];
  const Shape& shape = request.output_shape(0, {"y", ElementType::kFloat32, {kWidth}});
  if (shape != (request.has_batch_axis ? Shape{request.rows, kWidth} : Shape{kWidth})) return false;
  const auto* found = reinterpret_cast<const float*>(output.data.get());
  for (std::size_t i = 0; i < request.rows * kWidth; ++i) {
    if (found[i] != value + static_cast<float>(i / kWidth + i % kWidth) + 1) return false;
  }
  return true;
}

}  // namespace trtinfer::pipeline
