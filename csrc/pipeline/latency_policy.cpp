#include "pipeline/latency_policy.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace trtinfer::pipeline {

using ring::Nanoseconds;

namespace {

constexpr double kQuantile = 0.99;

// Batches that run side by side end together: when one of them did says little of its own cost, but
// the time of so many is the sum of theirs. Where one runs at a time, each says what it costs.
constexpr Learning kSideBySide{
    .stretch = 16, .correction = 0.5, .half_believed = 8, .forgotten = 2000, .by_samples = false};
constexpr Learning kOneAtATime{
    .stretch = 1, .correction = 0.15, .half_believed = 1, .forgotten = 1000, .by_samples = true};

// How much of what a stretch of batches was wrong by is corrected: in the sizes that ran, by their
// share; and in those of which little is known, since what makes one size slower, another clock or
// another user, does so to the others, too. Logarithms are corrected: what goes up by a mistake
// comes down by the opposite one; and all of that if others follow no more than the size itself.
constexpr double kOthers = 0.6;
constexpr double kMostWrong = 2;  // a stretch of more was held up by something else

// Of a size of which nothing is known this share of its cost is hoped for: less would have sizes
// tried that were never near the best.
constexpr double kMostHope = 0.5;

// Costs of two sizes that are this close are the same as far as one can tell. Who waits is then
// better off in the larger batch.
constexpr double kLeastDoubt = 0.05;

// A step of the running quantile, as a share of the target: it follows a change of load within some
// hundred requests and stays within a few per cent of the target otherwise.
constexpr double kMarginStep = 1.0 / 100;

}  // namespace

LatencyPolicy::LatencyPolicy(LatencyPolicyOptions options)
    : options_(std::move(options)),
      learning_(options_.lanes > 1 ? kSideBySide : kOneAtATime),
      tries_smaller_(options_.lanes == 1 && options_.target == ring::kNever),
      sizes_(options_.sizes.size()),
      runs_(options_.lanes) {
  if (options_.target <= 0) throw std::invalid_argument("latency_slo= must be above 0");
  if (options_.sizes.empty()) throw std::invalid_argument("a policy needs batch sizes");
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    sizes_[i].forgotten = learning_.forgotten * (learning_.by_samples ? options_.sizes[i] : 1);
  }
}

void LatencyPolicy::learn(std::uint32_t samples, Nanoseconds cost) {
  const std::lock_guard lock(mutex_);
  Size* size = size_of(samples);
  if (size != nullptr) size->cost = static_cast<double>(std::max<Nanoseconds>(cost, 1));
}

// Null: its cost says nothing of a size.
LatencyPolicy::Size* LatencyPolicy::size_of(std::uint32_t samples) {
  const auto size = std::lower_bound(options_.sizes.begin(), options_.sizes.end(), samples);
  if (size == options_.sizes.end() || (*size != samples && !options_.pads)) return nullptr;
  return &sizes_[static_cast<std::size_t>(size - options_.sizes.begin())];
}

// The share of a size's cost that may be a mistake.
double LatencyPolicy::doubt(const Size& size) const {
  const double few = learning_.half_believed / (learning_.half_believed + size.runs);
  return std::clamp(std::max(few, age(size)), kLeastDoubt, 1.0);
}

double LatencyPolicy::age(const Size& size) const {
  return std::min(1.0, static_cast<double>(passed_ - size.last_run) / size.forgotten);
}

void LatencyPolicy::learn_run(std::uint32_t samples, Nanoseconds seen) {
  Size* size = size_of(samples);
  if (size == nullptr) return;
  const auto time = static_cast<double>(std::max<Nanoseconds>(seen, 1));
  size->runs = size->runs * (1 - age(*size)) + 1;
  passed_ += learning_.by_samples ? samples : 1;
  size->last_run = passed_;
  if (size->cost == 0) size->cost = time;
  size->expected += size->cost;
  stretch_ += time;
  if (++stretch_batches_ == learning_.stretch) learn_stretch();
}

void LatencyPolicy::learn_stretch() {
  double expected = 0;
  for (const Size& size : sizes_) expected += size.expected;
  const double wrong = std::log(std::clamp(stretch_ / expected, 1 / kMostWrong, kMostWrong));
  for (Size& size : sizes_) {
    const double share = size.expected / expected;
    size.cost *= std::exp(wrong * learning_.correction * (share + kOthers * doubt(size)));
    size.expected = 0;
  }
  stretch_ = 0;
  stretch_batches_ = 0;
}

// Between two sizes a batch costs what the larger one does where it is padded, else a mixture.
double LatencyPolicy::cost_of(std::uint32_t samples) const {
  const auto above = std::lower_bound(options_.sizes.begin(), options_.sizes.end(), samples);
  if (above == options_.sizes.end()) {
    return sizes_.back().cost * samples / static_cast<double>(options_.sizes.back());
  }
  const auto i = static_cast<std::size_t>(above - options_.sizes.begin());
  if (*above == samples || options_.pads || i == 0) return sizes_[i].cost;
  const double share = static_cast<double>(samples - options_.sizes[i - 1]) /
                       static_cast<double>(*above - options_.sizes[i - 1]);
  return sizes_[i - 1].cost + share * (sizes_[i].cost - sizes_[i - 1].cost);
}

std::uint32_t LatencyPolicy::limit() const {
  if (tries_smaller_) return most_worth();
  std::uint32_t best = options_.sizes.front();
  double most = 0;
  for (std::size_t i = 0; i < options_.sizes.size(); ++i) {
    if (!keeps_target(sizes_[i])) continue;
    const double throughput = options_.sizes[i] / std::max(sizes_[i].cost, 1.0);
    // A size that has not shown its cost is taken for as good as the smaller ones.
    if (throughput < most * (1 - doubt(sizes_[i]))) continue;
    most = std::max(most, throughput);
    best = options_.sizes[i];
  }
  return best;
}

// Of what little is known the best is hoped: so each size shows its cost now and then.
std::uint32_t LatencyPolicy::most_worth() const {
  std::uint32_t best = options_.sizes.front();
  double most = 0;
  for (std::size_t i = 0; i < options_.sizes.size(); ++i) {
    const double samples = options_.sizes[i];
    const double hoped = sizes_[i].cost * std::max(1 - doubt(sizes_[i]), kMostHope);
    const double worth =
        samples / (hoped + kOverhead) * std::pow(kDoublingPays, -std::log2(samples));
    if (worth < most) continue;
    most = worth;
    best = options_.sizes[i];
  }
  return best;
}

// Who comes right after a launch waits for that batch, or for the first lane, and then for its own.
// Where the whole margin does not fit on top, only who comes then is refused: the size may still
// be the one that answers most.
bool LatencyPolicy::keeps_target(const Size& size) const {
  const double turns = 1 + 1.0 / (options_.lanes_share ? 1 : options_.lanes);
  return size.cost * turns + margin_ / 2 <= static_cast<double>(options_.target);
}

// A batch just over a size is padded far up: the size itself, and then the rest, may be cheaper.
std::uint32_t LatencyPolicy::worth_launching(std::uint32_t available) const {
  if (!options_.pads) return available;
  const auto above = std::lower_bound(options_.sizes.begin(), options_.sizes.end(), available);
  if (above == options_.sizes.end() || *above == available || above == options_.sizes.begin()) {
    return available;
  }
  const std::uint32_t below = *(above - 1);
  return below * cost_of(available) > available * cost_of(below) ? below : available;
}

bool LatencyPolicy::runs_nothing() const {
  return std::all_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.samples == 0; });
}

Nanoseconds LatencyPolicy::device_free_at(Nanoseconds now) const {
  if (runs_nothing()) return now;
  if (options_.lanes_share) return std::max(now, last_ends_at_);
  Nanoseconds first = ring::kNever;
  for (const Run& run : runs_) first = std::min(first, run.samples == 0 ? now : run.ends_at);
  return std::max(now, first);
}

LaunchDecision LatencyPolicy::decide(Nanoseconds now, std::uint32_t queued) const {
  const std::lock_guard lock(mutex_);
  const std::uint32_t most = limit();
  if (queued == 0 || queued >= most) return {most};
  if (!options_.lanes_share || runs_nothing()) return {worth_launching(queued)};
  // The device is busy: until shortly before its end, who comes can still join. What a small batch
  // takes is mostly launch and transfer, which is to overlap.
  const auto lead = static_cast<Nanoseconds>(sizes_.front().cost / 2);
  const Nanoseconds at = device_free_at(now) - lead;
  if (now < at) return {0, at};
  return {worth_launching(queued)};
}

Nanoseconds LatencyPolicy::predict(Nanoseconds now, std::uint32_t queued,
                                   std::uint32_t samples) const {
  const std::lock_guard lock(mutex_);
  const std::uint32_t most = limit();
  const std::uint32_t before = (queued + samples - 1) / most;  // whole batches ahead of its own
  const std::uint32_t own = queued + samples - before * most;
  const double ahead = before * cost_of(most) / (options_.lanes_share ? 1 : options_.lanes);
  return device_free_at(now) - now + std::llround(ahead + cost_of(own));
}

bool LatencyPolicy::admits(Nanoseconds now, std::uint32_t queued, std::uint32_t samples) const {
  {
    const std::lock_guard lock(mutex_);
    if (queued == 0 && runs_nothing()) return true;
  }
  return predict(now, queued, samples) + margin() <= options_.target;
}

void LatencyPolicy::launched(std::uint32_t lane, Nanoseconds now, std::uint32_t samples) {
  const std::lock_guard lock(mutex_);
  const Nanoseconds start = options_.lanes_share ? device_free_at(now) : now;
  last_ends_at_ = start + std::llround(cost_of(samples));
  runs_[lane] = {samples, now, last_ends_at_};
}

void LatencyPolicy::finished(std::uint32_t lane, Nanoseconds now) {
  const std::lock_guard lock(mutex_);
  const Run run = std::exchange(runs_[lane], Run{});
  const Nanoseconds start =
      options_.lanes_share ? std::max(run.launched_at, last_finished_) : run.launched_at;
  learn_run(run.samples, now - start);
  last_finished_ = now;
  // What is left is no more than what still runs: errors of predictions do not add up.
  Nanoseconds left = 0;
  for (const Run& other : runs_) {
    if (other.samples > 0) left += std::llround(cost_of(other.samples));
  }
  last_ends_at_ = std::min(last_ends_at_, now + left);
}

// A step up for 1 of 100, small steps down for the others: it settles where 1 of 100 is above.
void LatencyPolicy::answered(Nanoseconds predicted, Nanoseconds latency) {
  if (options_.target == ring::kNever) return;
  const std::lock_guard lock(mutex_);
  const double step = kMarginStep * static_cast<double>(options_.target);
  const bool short_of = static_cast<double>(latency - predicted) > margin_;
  margin_ += step * (short_of ? kQuantile : kQuantile - 1);
  margin_ = std::clamp(margin_, 0.0, static_cast<double>(options_.target) / 2);
}

std::uint32_t LatencyPolicy::batch_limit() const {
  const std::lock_guard lock(mutex_);
  return limit();
}

Nanoseconds LatencyPolicy::cost(std::uint32_t samples) const {
  const std::lock_guard lock(mutex_);
  return std::llround(cost_of(samples));
}

Nanoseconds LatencyPolicy::margin() const {
  const std::lock_guard lock(mutex_);
  return std::llround(margin_);
}

}  // namespace trtinfer::pipeline
