// What of csrc/tensorrt needs no TensorRT: the tables, and the objects that TensorRT calls.
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "tensorrt/abi.hpp"
#include "tensorrt/engine.hpp"
#include "tensorrt/error.hpp"
#include "tensorrt/library.hpp"
#include "tensorrt/logger.hpp"
#include "tensorrt/progress_monitor.hpp"

using namespace trtinfer::tensorrt;

namespace {

constexpr Family kFamilies[] = {Family::kTensorRt10, Family::kTensorRt11, Family::kRtx1};

// Calls as TensorRT does: through the vtable of what it was given.
template <typename Result, typename... Args>
Result call(void* interface, int slot, Args... args) {
  return DirectMethod<Result(Args...)>(slot)(interface, args...);
}

void versions_choose_families() {
  CHECK(family_of(100000) == Family::kTensorRt10);
  CHECK(family_of(101601) == Family::kTensorRt10);
  CHECK(family_of(110400) == Family::kTensorRt11);
  CHECK(family_of(10500) == Family::kRtx1);
  CHECK(family_of(10701) == Family::kRtx1);
  for (int unknown : {0, -1, 8601, 10400, 10499, 10800, 20000, 90000, 120000}) {
    CHECK(!family_of(unknown));
  }
}

void versions_have_names() {
  CHECK(version_text(10601) == "1.6.1");
  CHECK(version_text(101303) == "10.13.3");
  CHECK(version_text(8601) == "8.6.1");
}

void late_methods_are_absent_in_early_releases() {
  CHECK(!abi_of(Family::kTensorRt10, 101000).engine.create_runtime_config.exists());
  CHECK(abi_of(Family::kTensorRt10, 101100).engine.create_runtime_config.exists());
  CHECK(abi_of(Family::kTensorRt10, 100000).engine.device_memory_size.exists());
  CHECK(!abi_of(Family::kTensorRt11, 110000).config.set_compute_capability.exists());
  void* nothing[2] = {nullptr, nullptr};
  nothing[1] = nothing;
  CHECK_THROWS(abi_of(Family::kTensorRt11, 110000).runtime_cache.serialize(nothing),
               std::logic_error);
}

void every_family_logs_through_its_own_slot() {
  for (Family family : kFamilies) {
    const CallbackSlots slots = abi_of(family, 0).callbacks;
    Logger logger(slots);
    call<void>(logger.interface(), slots.log, Severity::kError, "broken");
    CHECK(logger.misused_slot() == -1);
    CHECK(logger.errors_since(0) == std::vector<std::string>{"broken"});
    call<void>(logger.interface(), 4 - slots.log, Severity::kError, "elsewhere");
    CHECK((logger.misused_slot() >= 0) == (slots.log == 0));  // slot 0 of the others is a getter
    CHECK(logger.mark() == 1);
  }
}

void errors_are_told_from_what_was_logged_before() {
  Logger logger(abi_of(Family::kRtx1, 10601).callbacks);
  const auto log = [&](Severity severity, const char* text) {
    call<void>(logger.interface(), 4, severity, text);
  };
  log(Severity::kError, "old");
  const auto mark = logger.mark();
  CHECK(logger.explain("it failed", mark) == "it failed: TensorRT does not say why");
  log(Severity::kWarning, "a warning");
  log(Severity::kError, "first");
  log(Severity::kInfo, "not kept");
  log(Severity::kInternalError, "second");
  CHECK(logger.explain("it failed", mark) == "it failed: first; second");
  CHECK(logger.drain().size() == 4);
  CHECK(logger.drain().empty());
  CHECK(logger.errors_since(mark).size() == 2);
}

void messages_are_bounded() {
  Logger logger(abi_of(Family::kTensorRt10, 101000).callbacks);
  const std::string text(1 << 20, 'x');
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 100; ++j) {
        call<void>(logger.interface(), 0, Severity::kError, text.c_str());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<Message> kept = logger.drain();
  CHECK(logger.mark() == 400);
  CHECK(kept.size() < 400 && kept.size() > 10);
  CHECK(kept.front().text.size() < text.size());
  CHECK(logger.errors_since(0).size() < 20);
}

void progress_is_reported_and_stops() {
  std::vector<Progress> seen;
  ProgressMonitor monitor([&](const Progress& progress) {
    seen.push_back(progress);
    return progress.step < 2;
  });
  call<void>(monitor.interface(), 4, "all", static_cast<const char*>(nullptr), std::int32_t{3});
  CHECK(call<bool>(monitor.interface(), 5, "all", std::int32_t{0}));
  CHECK(!call<bool>(monitor.interface(), 5, "all", std::int32_t{1}));
  CHECK(!call<bool>(monitor.interface(), 5, "all", std::int32_t{2}));
  call<void>(monitor.interface(), 6, "all");
  CHECK(seen.size() == 3);  // nothing after the stop
  CHECK(seen.back().phase == "all" && seen.back().parent.empty());
  CHECK(seen.back().step == 2 && seen.back().steps == 3);
  CHECK(monitor.stopped());
}

void exceptions_of_the_callback_come_back() {
  ProgressMonitor monitor([](const Progress&) -> bool { throw std::runtime_error("mine"); });
  monitor.rethrow();
  call<void>(monitor.interface(), 4, "all", "parent", std::int32_t{3});
  CHECK(monitor.stopped());
  CHECK_THROWS(monitor.rethrow(), std::runtime_error);
}

void shapes_go_there_and_back() {
  const Shape shape{-1, 3, 224, 224};
  CHECK(to_shape(to_dims(shape)) == shape);
  CHECK(to_shape(to_dims({})).empty());
  CHECK_THROWS(to_dims(Shape(9, 1)), Error);
  Dims invalid;
  invalid.rank = -1;
  CHECK_THROWS(to_shape(invalid), Error);
}

void absent_library_is_an_error() {
  CHECK_THROWS(Library::load({"/absent/libnvinfer.so.10", "", {}}), Error);
}

}  // namespace

int main() {
  versions_choose_families();
  versions_have_names();
  late_methods_are_absent_in_early_releases();
  every_family_logs_through_its_own_slot();
  errors_are_told_from_what_was_logged_before();
  messages_are_bounded();
  progress_is_reported_and_stops();
  exceptions_of_the_callback_come_back();
  shapes_go_there_and_back();
  absent_library_is_an_error();
}
