#include "pipeline/latency_policy.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace trtinfer::pipeline {

using ring::Nanoseconds;

namespace {

constexpr double kQuantile = 0.99;

// Weight of a new cost: the last twenty batches or so of a size count, of a new one all. What makes
// one size slower, another clock or another user, does so to the others, too: above all to those
// that do not run, and cannot show it.
constexpr double kCostWeight = 0.1;
constexpr double kShareOfOthers = 0.8;

// A size that has not run for so many batches may have become cheaper, and is tried again.
constexpr std::uint64_t kForgotten = 500;

// A step of the running quantile, as a share of the target: it follows a change of load within some
// hundred requests and stays within a few per cent of the target otherwise.
constexpr double kMarginStep = 1.0 / 100;

}  // namespace

LatencyPolicy::LatencyPolicy(LatencyPolicyOptions options)
    : options_(std::move(options)), sizes_(options_.sizes.size()), runs_(options_.lanes) {
  if (options_.target <= 0) throw std::invalid_argument("latency_slo= must be above 0");
  if (options_.sizes.empty()) throw std::invalid_argument("a policy needs batch sizes");
}

void LatencyPolicy::learn(std::uint32_t samples, Nanoseconds cost) {
  const std::lock_guard lock(mutex_);
  learn_cost(samples, cost, true);
}

bool LatencyPolicy::is_in_use(const Size& size) const {
  return size.runs > 0 && batches_ - size.last_run < kForgotten;
}

void LatencyPolicy::learn_cost(std::uint32_t samples, Nanoseconds cost, bool is_trial) {
  const auto size = std::lower_bound(options_.sizes.begin(), options_.sizes.end(), samples);
  if (size == options_.sizes.end() || (*size != samples && !options_.pads)) return;
  const auto index = static_cast<std::size_t>(size - options_.sizes.begin());
  const auto seen = static_cast<double>(std::max<Nanoseconds>(cost, 1));
  Size& own = sizes_[index];
  double weight = kCostWeight;
  if (!is_trial) {
    own.runs = is_in_use(own) ? own.runs + 1 : 1;
    own.last_run = ++batches_;
    weight = std::max(weight, 1.0 / own.runs);
  }
  if (own.cost == 0) {
    own.cost = seen;
    return;
  }
  const double change = seen / own.cost - 1;
  for (Size& other : sizes_) {
    const double others = kShareOfOthers * (is_in_use(other) ? kCostWeight : weight);
    other.cost *= 1 + (&other == &own ? weight : others) * change;
  }
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

// Who comes right after a launch waits for that batch, or for the first lane, and then for its own.
std::uint32_t LatencyPolicy::limit() const {
  const double turns = 1 + 1.0 / (options_.lanes_share ? 1 : options_.lanes);
  std::uint32_t best = options_.sizes.front();
  double most = 0;
  for (std::size_t i = 0; i < options_.sizes.size(); ++i) {
    const double cost = std::max(sizes_[i].cost, 1.0);
    const double throughput = options_.sizes[i] / cost;
    if (cost * turns + margin_ > static_cast<double>(options_.target)) continue;
    // A size that is in no use is taken for as good as the smaller ones, or it would never show.
    if (throughput < most && is_in_use(sizes_[i])) continue;
    most = std::max(most, throughput);
    best = options_.sizes[i];
  }
  return best;
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
  if (queued == 0 || queued >= most) return {most, now};
  if (!options_.lanes_share || runs_nothing()) return {worth_launching(queued), now};
  // The device is busy: until shortly before its end, who comes can still join. What a small batch
  // takes is mostly launch and transfer, which is to overlap.
  const auto lead = static_cast<Nanoseconds>(sizes_.front().cost / 2);
  const Nanoseconds at = device_free_at(now) - lead;
  if (now < at) return {0, at};
  return {worth_launching(queued), now};
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
  learn_cost(run.samples, now - start, false);
  last_finished_ = now;
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
