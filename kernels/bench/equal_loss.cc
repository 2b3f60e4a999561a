// W1's condition: what compressing updates costs in loss. Several peers train a small LLaMA on the
// bytes of a text by rounds of inner AdamW steps; the arms differ in how a round's pseudo-gradients
// are exchanged: dense in fp32 (averaged, with a tuned outer momentum) or as updates of 2 or 1 bits a
// value. Every arm picks its outer settings on a seed of its own, then all run on the same other
// seeds. The result is the difference of the held-out loss from the dense arm, paired by seed.
//
// Runs are independent and have one thread each, so the figures do not depend on the machine's load.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "outer_training.h"

namespace {

using namespace covenant_bench;

constexpr float kOuterRates[] = {0.7f, 1.0f, 1.4f};
constexpr float kMomenta[] = {0.0f, 0.5f, 0.9f};
constexpr uint32_t kTuningSeed = 1000;
constexpr const char* kNames[] = {"dense", "1bit", "2bit"};

struct Arguments {
  Options options;
  Schedule schedule;
  int32_t seeds = 3;
  int32_t threads = 0;
  std::string text = COVENANT_TEXT;
  std::string curves;
};

[[noreturn]] void usage(const char* wrong) {
  std::fprintf(stderr,
               "Not understood: %s. There are --json, --quick, --seeds N, --peers N, --rounds N, "
               "--steps N, --sequences N, --threads N, --text FILE, --curves FILE.\n",
               wrong);
  std::exit(2);
}

Arguments arguments(int argc, char** argv) {
  Arguments out;
  const auto number = [&](int& i, int32_t least) {
    const int value = i + 1 < argc ? std::atoi(argv[i + 1]) : 0;
    if (value < least || value > 1'000'000) usage(argv[i]);
    ++i;
    return value;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--json") out.options.json = true;
    else if (name == "--quick") out.options.quick = true;
    else if (name == "--seeds") out.seeds = number(i, 2);
    else if (name == "--peers") out.schedule.peers = number(i, 1);
    else if (name == "--rounds") out.schedule.rounds = number(i, 1);
    else if (name == "--steps") out.schedule.inner_steps = number(i, 1);
    else if (name == "--sequences") out.schedule.sequences = number(i, 1);
    else if (name == "--threads") out.threads = number(i, 1);
    else if (name == "--text" && i + 1 < argc) out.text = argv[++i];
    else if (name == "--curves" && i + 1 < argc) out.curves = argv[++i];
    else usage(argv[i]);
  }
  if (out.options.quick) out.schedule.rounds = std::min(out.schedule.rounds, 2);
  if (out.threads == 0) out.threads = cov_default_threads();
  return out;
}

// One training run and what came out of it.
struct Run {
  Exchange exchange;
  uint32_t seed = 0;
  std::vector<Point> curve;
  double loss() const { return curve.back().loss; }
};

void train_all(std::vector<Run>& runs, const Arguments& arguments, const Text& text) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < runs.size(); i = next++) {
      Run& run = runs[i];
      run.curve = outer_training(arguments.schedule, run.exchange, run.seed, text);
      std::fprintf(stderr, "%s, outer rate %g, momentum %g, seed %u: %.4f\n",
                   kNames[run.exchange.mode], static_cast<double>(run.exchange.rate),
                   static_cast<double>(run.exchange.momentum), run.seed, run.loss());
    }
  };
  std::vector<std::thread> threads;
  for (int32_t t = 1; t < arguments.threads; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

// Every setting of every arm on the tuning seed; the best of each arm, by mode.
std::vector<Exchange> tuned(const Arguments& arguments, const Text& text) {
  std::vector<Run> runs;
  for (const int32_t mode : {0, 1, 2}) {
    for (const float rate : kOuterRates) {
      for (const float momentum : kMomenta) {
        if (mode == 0 || momentum == 0) runs.push_back({{mode, rate, momentum}, kTuningSeed, {}});
      }
    }
  }
  train_all(runs, arguments, text);
  std::vector<Exchange> best;
  for (const int32_t mode : {0, 1, 2}) {
    const Run* lowest = nullptr;
    for (const Run& run : runs) {
      if (run.exchange.mode == mode && (lowest == nullptr || run.loss() < lowest->loss()))
        lowest = &run;
    }
    best.push_back(lowest->exchange);
  }
  return best;
}

struct Mean {
  double value = 0;
  double error = 0;  // standard error
};

Mean mean_of(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  Mean out;
  for (const double value : values) out.value += value / count;
  double squares = 0;
  for (const double value : values) squares += std::pow(value - out.value, 2);
  out.error = std::sqrt(squares / (count - 1) / count);
  return out;
}

std::vector<double> losses(const std::vector<Run>& runs, int32_t mode) {
  std::vector<double> out;
  for (const Run& run : runs) {
    if (run.exchange.mode == mode) out.push_back(run.loss());
  }
  return out;
}

void write_curves(const std::string& path, const std::vector<Run>& runs) {
  std::ofstream file(path);
  file << "arm,seed,round,loss\n";
  for (const Run& run : runs) {
    for (const Point& point : run.curve)
      file << kNames[run.exchange.mode] << ',' << run.seed << ',' << point.round << ','
           << point.loss << '\n';
  }
  if (!file) {
    std::fprintf(stderr, "%s cannot be written\n", path.c_str());
    std::exit(1);
  }
}

void report(const Arguments& arguments, const std::vector<Exchange>& best,
            const std::vector<Run>& runs) {
  const std::vector<double> dense = losses(runs, 0);
  const Mean dense_mean = mean_of(dense);
  // What another seed moves the dense loss by: two standard deviations.
  const double noise = 2 * dense_mean.error * std::sqrt(static_cast<double>(dense.size()));
  for (const int32_t mode : {0, 2, 1}) {
    const Exchange& exchange = best[static_cast<size_t>(mode)];
    const std::vector<double> own = losses(runs, mode);
    const Mean own_mean = mean_of(own);
    std::vector<double> differences;
    for (size_t s = 0; s < own.size(); ++s) differences.push_back(own[s] - dense[s]);
    const Mean difference = mean_of(differences);
    char note[400];
    std::snprintf(note, sizeof note,
                  "held-out loss %.4f +- %.4f nats a byte, dense %.4f +- %.4f, difference +- %.4f; %zu seeds, %d peers, %d "
                  "rounds of %d steps; outer rate %g, momentum %g",
                  own_mean.value, own_mean.error, dense_mean.value, dense_mean.error,
                  difference.error, own.size(), arguments.schedule.peers,
                  arguments.schedule.rounds, arguments.schedule.inner_steps,
                  static_cast<double>(exchange.rate), static_cast<double>(exchange.momentum));
    if (mode == 0) {
      print(arguments.options, {.id = "W1.loss.dense",
                                .metric = "held-out loss, dense fp32 exchange",
                                .value = own_mean.value,
                                .unit = "nats/B",
                                .note = note});
      continue;
    }
    print(arguments.options, {.id = std::string("W1.loss.") + kNames[mode],
                              .metric = "held-out loss minus that of dense exchange",
                              .value = difference.value,
                              .unit = "nats/B",
                              .yardstick = "seed noise, two standard deviations of dense",
                              .yardstick_value = noise,
                              .ratio = difference.value / noise,
                              .must = 1.0,
                              .aim = 0.0,
                              .note = note,
                              .lower_is_better = true});
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments given = arguments(argc, argv);
  const Text text(read_text(given.text));
  const std::vector<Exchange> best = tuned(given, text);
  std::vector<Run> runs;
  for (int32_t seed = 1; seed <= given.seeds; ++seed) {
    for (const Exchange& exchange : best)
      runs.push_back({exchange, static_cast<uint32_t>(seed), {}});
  }
  train_all(runs, given, text);
  report(given, best, runs);
  if (!given.curves.empty()) write_curves(given.curves, runs);
  return 0;
}
