#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/tensor_spec.hpp"
#include "ring/ring.hpp"

namespace trtinfer::pipeline {

class Notifier;

/// How a request ended; it ends exactly once.
enum class Outcome : std::uint32_t {
  kPending,
  kCompleted,
  kFailed,     ///< the backend reported an error for it
  kExpired,    ///< its deadline passed
  kCancelled,  ///< the caller took it back before it was launched
  kClosed,     ///< the session was closed without draining
};

/// An output of a finished request.
struct OutputTensor {
  Shape shape;  ///< left empty where it is the specification's: see `Request::output_shape`
  std::shared_ptr<std::byte> data;  ///< keeps the memory alive, unless that is the request's own
  std::optional<int> device;        ///< the GPU that the memory is of; none: it is the host's
};

/// One inference asked for, from claim to completion. Shared by the caller and the batch that runs
/// it: a caller that gave up leaves the memory valid until the batch is done. The small things that
/// a request needs lie within it, as allocating each would cost more than all the rest.
/// Thread-safe where said; everything else belongs to the lane while launched, then to the caller.
class Request {
 public:
  Request(std::uint32_t rows, bool has_batch_axis);
  ~Request();

  /// In memory that earlier requests have left behind on this thread, where there is some.
  static std::shared_ptr<Request> make(std::uint32_t rows, bool has_batch_axis);

  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  /// Ends the request; false when it had already ended. `count` is called before anyone can see the
  /// end, so that a caller finds its own request in the counters. Thread-safe.
  template <typename Count>
  bool resolve(Outcome outcome, const std::string& error, const Count& count) {
    std::uint32_t pending = 0;
    if (!state_.compare_exchange_strong(pending, kResolving, std::memory_order_acq_rel)) {
      return false;
    }
    count();
    error_ = error;
    state_.store(static_cast<std::uint32_t>(outcome), std::memory_order_release);
    return true;
  }

  /// kPending until the request has ended. Thread-safe.
  Outcome outcome() const;
  bool done() const { return outcome() != Outcome::kPending; }
  const std::string& error() const { return error_; }

  /// Notes that one of the request's units is through; true for the last one. Thread-safe.
  bool finish_unit() { return units_left.fetch_sub(1, std::memory_order_acq_rel) == 1; }

  /// Outputs of up to as many bytes lie within the request; larger ones may outlive it.
  static constexpr std::size_t kNearOutputs = 256;

  /// Memory for what does not outlive the request.
  std::pmr::memory_resource* memory() { return &memory_; }

  /// Allocates the outputs whose row shape is known, all in one block.
  void allocate_outputs(const std::vector<TensorSpec>& specs);

  /// Memory of output `index` with the shape of `rows` rows; allocated now if it was not before.
  /// `row` is the shape of one row (of the whole tensor when the model is not batched).
  /// Null when it has another shape already. Thread-safe: parts of a request may run on two lanes.
  std::byte* output(std::size_t index, const TensorSpec& spec, const Shape& row, bool batched);

  const Shape& output_shape(std::size_t index, const TensorSpec& spec) const {
    return spec.is_static() && !has_batch_axis ? spec.shape : outputs[index].shape;
  }

  /// Gives output `index` memory of a GPU, for all of the request's rows.
  void keep_output(std::size_t index, const Shape& row, bool batched,
                   std::shared_ptr<std::byte> data, int device);

  const std::uint32_t rows;   ///< samples
  const bool has_batch_axis;  ///< whether inputs and outputs carry the batch axis

 private:
  std::array<std::byte, kNearOutputs + 256> near_;  // a unit, two outputs, a cookie
  std::pmr::monotonic_buffer_resource memory_{near_.data(), near_.size()};

 public:
  std::pmr::vector<ring::Unit> units{&memory_};  ///< the slots it was published in
  std::atomic<std::uint32_t> units_left{1};
  std::atomic<bool> launched{false};
  std::pmr::vector<OutputTensor> outputs{&memory_};
  ring::Nanoseconds arrival = 0, deadline = ring::kNever;
  std::atomic<ring::Nanoseconds> launched_at{0};
  ring::Nanoseconds finished_at = 0;         ///< set before the end; 0: it was not completed
  std::atomic<std::uint32_t> batch_rows{0};  ///< of the batch that it was launched in last
  ring::Nanoseconds predicted = 0;           ///< latency, when it was published; 0: not said
  std::uint32_t wait_word = 0;               ///< which of the pipeline's words its caller sleeps on
  std::shared_ptr<Notifier> notifier;        ///< null: a caller waits for it in a call; given up at
                                             ///< the end, since the notifier then holds the request
  std::shared_ptr<void> cookie;   ///< the notifier's reader's; the core never looks at it
  std::shared_ptr<void> payload;  ///< inputs, then outputs, of an opaque request; of others
                                  ///< what keeps device inputs alive; likewise
  std::shared_ptr<void> context;  ///< for the reader of traces; likewise

  /// Requests now alive in the process; a leak test looks at it.
  static std::int64_t alive() { return alive_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kResolving = 0xffffffffu;
  std::atomic<std::uint32_t> state_{0};
  std::string error_;
  std::mutex outputs_mutex_;
  static std::atomic<std::int64_t> alive_;
};

}  // namespace trtinfer::pipeline
