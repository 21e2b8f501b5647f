#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "pipeline/executor.hpp"
#include "pipeline/latency_policy.hpp"
#include "pipeline/notifier.hpp"
#include "pipeline/reaper.hpp"
#include "pipeline/request.hpp"
#include "pipeline/slot_memory.hpp"
#include "pipeline/stats.hpp"
#include "pipeline/trace_log.hpp"
#include "pipeline/turnstile.hpp"
#include "ring/ring.hpp"

namespace trtinfer::pipeline {

/// The call came after close, or in a child process forked after the session was opened.
class ClosedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A request finds no room in the ring.
class FullError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A request can never run, however empty the ring is: it is too large for it, or has a shape that
/// the executor does not take.
class UnfitError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A claimed unit being filled: released when dropped unpublished. Move-only.
class Claim;

/// The way of a request: claim -> fill -> publish -> batch -> executor -> completion.
/// Owns the ring, the slot memory and one thread a lane; a caller that waits and finds a lane idle
/// runs the batch itself (leader and followers), so that a lone request changes no thread.
/// Thread-safe. Nothing here knows of Python.
class Pipeline : public std::enable_shared_from_this<Pipeline> {
 public:
  /// Without a `policy`, an idle lane takes what there is.
  Pipeline(std::shared_ptr<Executor> executor, std::vector<TensorSpec> inputs,
           const ring::RingOptions& options, std::shared_ptr<LatencyPolicy> policy = nullptr);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// Claims room for `rows` samples with these input shapes (ignored when shapes are static),
  /// waiting until `deadline` (0: not at all). Throws FullError, UnfitError, ClosedError.
  Claim claim(std::uint32_t rows, const std::vector<Shape>& shapes, ring::Nanoseconds deadline);

  /// The same without counting a refusal: nothing when there is no room by the deadline.
  std::optional<Claim> try_claim(std::uint32_t rows, const std::vector<Shape>& shapes,
                                 ring::Nanoseconds deadline = 0);

  /// Readies a request: arrival is now, outputs of known shape are allocated.
  std::shared_ptr<Request> make_request(std::uint32_t rows, bool has_batch_axis);

  /// Publishes a filled claim as rows `first_row`.. of `request`. A caller that will `wait` for the
  /// request at once leaves `wake` false. Throws ClosedError, and FullError when the policy's
  /// target can no longer be kept.
  void publish(Claim&& claim, const std::shared_ptr<Request>& request, std::uint32_t first_row,
               int priority, bool wake);

  /// Runs or waits for the batch that answers `request`, until its deadline; false when `until`
  /// comes first, so that the caller can look at something else meanwhile.
  bool wait(const std::shared_ptr<Request>& request, ring::Nanoseconds until = ring::kNever);

  /// Ends a request of which only some parts were published.
  void abandon(const std::shared_ptr<Request>& request, Outcome outcome);

  /// Expires a request whose deadline nobody waits for.
  void watch_deadline(const std::shared_ptr<Request>& request);

  /// Wakes a lane for requests that were published without `wake`.
  void wake();

  /// Runs them here if batches have been quicker than the hand-overs to a lane thread and back,
  /// else wakes a lane. For event loops, which must not be held up: after a batch that took longer,
  /// some go to the lanes before one is run here again. Returns whether batches were run.
  bool lead_briefly();

  /// Time that the executor takes for a batch of `rows` with these input shapes, by running one on
  /// whatever lies in the slots. Before the first request only.
  ring::Nanoseconds time_batch(std::uint32_t rows, const std::vector<Shape>& shapes);

  /// While one lives, `close` does not return: a request has left the ring, or parts of it have yet
  /// to come, and it has not ended.
  class ClosingHold {
   public:
    explicit ClosingHold(Pipeline& pipeline);
    ~ClosingHold();
    ClosingHold(const ClosingHold&) = delete;
    ClosingHold& operator=(const ClosingHold&) = delete;

   private:
    Pipeline& pipeline_;
  };

  /// Takes a request back unless it has been launched; true when it will not run.
  bool cancel(const std::shared_ptr<Request>& request);

  /// Notes every accepted request there as it ends. Before the first request only.
  void trace_into(std::shared_ptr<TraceLog> log) { trace_log_ = std::move(log); }
  bool traces() const { return trace_log_ != nullptr; }

  /// Refuses new requests; with `drain` all accepted ones are answered first, else those not yet
  /// launched end as closed. Ends the threads, so it must not be called on one of them. May be
  /// called again, by several threads at once, too.
  void close(bool drain);

  /// For callers who give a lock up while they wait, and want it back then.
  Turnstile& turnstile() { return turnstile_; }

  bool closed() const { return closed_.load(std::memory_order_acquire); }
  Stats& stats() { return stats_; }
  ring::Occupancy occupancy() { return ring_.occupancy(); }
  const SlotMemory& memory() const { return memory_; }
  std::uint32_t capacity() const { return ring_.capacity(); }
  std::uint32_t max_batch_size() const { return max_batch_size_; }
  bool reads_device_inputs() const { return executor_->reads_device_inputs(); }
  bool keeps_outputs() const { return executor_->keeps_outputs(); }
  std::vector<LaneStream> streams() const { return executor_->streams(); }

  /// Throws ClosedError in a child process forked after construction.
  void check_process() const;

  /// Pipelines now alive in the process; a leak test looks at it.
  static std::int64_t alive() { return alive_.load(std::memory_order_relaxed); }

 private:
  friend class Claim;

  /// What is known of a claimed unit, kept at its first slot.
  struct UnitRecord {
    std::shared_ptr<Request> request;
    std::uint32_t first_row = 0;
    std::vector<std::byte*> inputs;
    std::vector<Shape> shapes;
    std::vector<DeviceInput> device_inputs;  // empty: all inputs are in the slots
  };

  /// What a thread that runs batches reuses from one to the next.
  struct Runner {
    ring::TakenBatch taken;
    Batch batch;
    std::vector<BatchUnit> units;  // of `batch`
    std::vector<std::shared_ptr<Request>> requests;
    std::vector<std::shared_ptr<Notifier>> notifiers;
    bool busy = false;     // with a batch, within which the thread may come here again
    bool signals = false;  // whether the last batch had requests of notifiers
  };

  bool run_one(Runner& runner, bool continues, bool shares = true);
  bool take(ring::TakenBatch& taken);
  bool holds() const;
  void check_target(Request& request);
  void execute(Runner& runner);
  void release_slots(Runner& runner);
  void prepare(Runner& runner);
  std::string try_run(const Batch& batch);
  void run_singly(Runner& runner, std::vector<std::string>& errors);
  void complete(Runner& runner, const std::vector<std::string>& errors);
  void resolve_expired(ring::TakenBatch& taken);
  bool withdraw(Request& request);
  void end(const std::shared_ptr<Request>& request, Outcome outcome, const std::string& error);
  void count(Outcome outcome);
  void flush();
  void wait_for_holds();
  void lane_loop();

  /// Waits a little for more work before the thread sleeps: to wake it costs more than that.
  bool spin(std::uint32_t seen, ring::Nanoseconds until);

  /// The number of the batch that a request published now will probably be in. Those who wait for
  /// the same batch sleep on the same word, so that one system call wakes them all.
  std::uint32_t expected_batch() const;
  static Runner& this_threads_runner();

  // Waking a thread and being woken by it takes about as long.
  static constexpr ring::Nanoseconds kBrief = 50'000;
  static constexpr ring::Nanoseconds kSlow = 16 * kBrief;  // takes some batches to be forgotten
  static constexpr std::size_t kWaitWords = 64;
  static constexpr ring::Nanoseconds kSpin = 30'000;  // about what it takes to wake a thread
  static std::atomic<std::int64_t> alive_;

  std::shared_ptr<Executor> executor_;
  const std::uint32_t max_batch_size_;
  const std::uint64_t arena_bytes_;
  const bool may_lead_;
  const std::uint32_t process_generation_;
  Stats stats_;
  SlotMemory memory_;
  ring::Ring ring_;
  std::vector<UnitRecord> records_;
  std::array<ring::WaitWord, kWaitWords> wait_words_;
  Turnstile turnstile_;
  std::atomic<std::uint32_t> forming_{0}, holders_{0};
  ring::WaitWord unheld_;
  const std::shared_ptr<LatencyPolicy> policy_;  // may be null
  std::shared_ptr<TraceLog> trace_log_;          // may be null
  // A lane thread looks again then, so nobody has to wake one for fewer samples than this.
  std::atomic<ring::Nanoseconds> held_until_{0};
  std::atomic<std::uint32_t> held_below_{0};
  std::atomic<ring::Nanoseconds> slowest_lately_{kSlow};  // time of a batch; decays
  std::atomic<bool> closed_{false}, stopping_{false}, spinning_{false};
  std::mutex closing_;
  std::unique_ptr<Reaper> reaper_;
  std::vector<std::thread> lanes_;
};

class Claim {
 public:
  Claim() = default;
  Claim(std::shared_ptr<Pipeline> pipeline, ring::Unit unit);
  Claim(Claim&& other) noexcept;
  Claim& operator=(Claim&& other) noexcept;
  ~Claim() { release(); }

  /// Gives the slots back unpublished; nothing happens when they were published or released.
  void release();

  /// Addresses of the inputs, in the model's order, while the claim is held.
  const std::vector<std::byte*>& inputs() const;
  const std::vector<Shape>& shapes() const;

  /// What fills an input from memory of the host.
  SlotFill filling(std::size_t input, const std::byte* from, std::size_t bytes) const;

  /// Fills the inputs that lie on a GPU, one for each input of the model: from there, if the
  /// backend reads such memory when the batch runs, else now, waiting for it. Throws cuda::Error.
  void fill(std::vector<DeviceInput> inputs);
  bool reads_device_inputs() const { return pipeline_->reads_device_inputs(); }
  std::uint32_t rows() const { return unit_.count; }
  bool held() const { return pipeline_ != nullptr; }

 private:
  friend class Pipeline;
  std::shared_ptr<Pipeline> pipeline_;
  ring::Unit unit_;
};

}  // namespace trtinfer::pipeline
