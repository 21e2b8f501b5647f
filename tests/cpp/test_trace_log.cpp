// What is noted of requests as they end.
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "add_one.hpp"
#include "check.hpp"
#include "pipeline/trace_log.hpp"

using namespace trtinfer::pipeline;
using trtinfer::ring::Nanoseconds;

namespace {

void notes_each_end_once_and_its_batch() {
  const AddOnePipeline p({.capacity = 8, .max_batch_size = 4});
  const auto log = std::make_shared<TraceLog>();
  const auto notifier = std::make_shared<Notifier>();
  p.pipeline->trace_into(log);
  p.executor->close_gate();
  const auto lone = p.publish(1, 1, notifier);
  p.executor->wait_until_running(1);
  const auto cancelled = p.publish(1, 1, notifier);
  const auto bad = p.publish(kBad, 1, notifier), good = p.publish(1, 2, notifier);
  CHECK(p.pipeline->cancel(cancelled) && !p.pipeline->cancel(cancelled));
  p.executor->open_gate();
  p.pipeline->close(true);

  std::vector<RequestTrace> traces;
  log->drain(traces);
  CHECK(traces.size() == 4);
  const Outcome outcomes[] = {Outcome::kCancelled, Outcome::kCompleted, Outcome::kFailed,
                              Outcome::kCompleted};
  const std::uint32_t rows[] = {1, 1, 1, 2}, batch_rows[] = {0, 1, 3, 3};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(traces[i].outcome == outcomes[i] && traces[i].rows == rows[i]);
    CHECK(traces[i].batch_rows == batch_rows[i] && traces[i].finished >= traces[i].launched);
    CHECK(batch_rows[i] == 0 ? traces[i].launched == 0 : traces[i].launched > traces[i].arrival);
    CHECK(traces[i].error.empty() == (outcomes[i] != Outcome::kFailed));
  }
}

void drops_what_the_reader_is_too_slow_for() {
  TraceLog log;
  std::vector<RequestTrace> traces;
  Request request(1, true);
  for (std::size_t i = 0; i < TraceLog::kCapacity; ++i) log.add(request, 1);
  request.context = std::make_shared<int>(7);
  log.add(request, 2);
  CHECK(log.dropped() == 1 && request.context != nullptr);
  log.drain(traces);
  CHECK(traces.size() == TraceLog::kCapacity);
  log.add(request, 3);
  CHECK(log.dropped() == 1 && request.context == nullptr);
  log.drain(traces);
  CHECK(traces.size() == 1 && traces[0].finished == 3 && traces[0].context != nullptr);
}

void ends_the_wait_of_a_stopped_reader() {
  TraceLog log;
  std::thread reader([&] { CHECK(!log.wait()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  log.stop();
  reader.join();
  Request request(1, true);
  log.add(request, 1);
  CHECK(log.wait());  // what ended before is still handed out
  std::vector<RequestTrace> traces;
  log.drain(traces);
  CHECK(traces.size() == 1 && !log.wait());
}

}  // namespace

int main() {
  notes_each_end_once_and_its_batch();
  drops_what_the_reader_is_too_slow_for();
  ends_the_wait_of_a_stopped_reader();
}
