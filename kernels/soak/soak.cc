// One process, several threads, mixed jobs for a long time: does memory stay flat, does anything
// stall, does a result change? Exits with 1 on a fault, 3 when a job stalls, else 0.
//
//   soak [--seconds N] [--seed N] [--workers N] [--stall-seconds N] [--report FILE]
#include <unistd.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "jobs.h"

namespace {

using covenant_soak::Worker;

struct Options {
  double seconds = 60;
  uint64_t seed = 1;
  int workers = 3;
  double stall_seconds = 300;
  const char* report = nullptr;
};

// A number above zero, and nothing behind it.
bool number(const char* text, double& value) {
  char* end = nullptr;
  value = std::strtod(text, &end);
  return end != text && *end == '\0' && value > 0;
}

Options parse(int argc, char** argv) {
  Options options;
  bool ok = true;
  for (int i = 1; i < argc && ok; i += 2) {
    const std::string name = argv[i];
    const char* const text = i + 1 < argc ? argv[i + 1] : "";
    double value = 0;
    ok = name == "--report" ? *text != '\0' : number(text, value);
    if (name == "--seconds") {
      options.seconds = value;
    } else if (name == "--seed") {
      options.seed = static_cast<uint64_t>(value);
    } else if (name == "--workers") {
      options.workers = static_cast<int>(std::clamp(value, 1.0, 64.0));
    } else if (name == "--stall-seconds") {
      options.stall_seconds = value;
    } else if (name == "--report") {
      options.report = text;
    } else {
      ok = false;
    }
  }
  if (!ok) {
    std::fprintf(stderr, "Usage: soak [--seconds N] [--seed N] [--workers N] [--stall-seconds N] "
                         "[--report FILE]; numbers are above 0.\n");
    std::exit(2);
  }
  return options;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Resident memory of this process; 0 where the system does not say.
double resident_mib() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long long total = 0, resident = 0;
  const int read = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return read == 2 ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) /
                         (1 << 20)
                   : 0;
}

// Bytes that are allocated and not freed, in MiB; 0 where the allocator does not say.
double held_mib() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd) / (1 << 20);
#else
  return 0;
#endif
}

// One worker, its thread, and what the watchdog looks at.
struct Lane {
  explicit Lane(uint64_t seed) : worker(seed) {}
  Worker worker;
  std::thread thread;
  std::atomic<double> started_s{0};  // of the running job
  std::atomic<const char*> job{""};
  std::atomic<uint64_t> done{0};
  std::atomic<bool> faulty{false};
};

void work(Lane& lane, const std::atomic<bool>& stop) {
  while (!stop.load(std::memory_order_relaxed)) {
    const Worker::Job& job = lane.worker.choose();
    lane.job.store(job.name);
    lane.started_s.store(now_s());
    if (!lane.worker.run(job)) {
      lane.faulty.store(true);
      return;
    }
    lane.done.fetch_add(1, std::memory_order_relaxed);
  }
}

struct Sample {
  double at_s, resident_mib, model_mib;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

// Median resident memory between two shares of the run.
double middle_mib(const std::vector<Sample>& curve, double from, double to) {
  std::vector<double> values;
  const size_t n = curve.size();
  for (size_t i = static_cast<size_t>(from * static_cast<double>(n));
       i < static_cast<size_t>(to * static_cast<double>(n)); ++i)
    values.push_back(curve[i].resident_mib);
  return median(values);
}

class Soak {
 public:
  explicit Soak(const Options& options) : options_(options) {
    for (int i = 0; i < options.workers; ++i)
      lanes_.push_back(std::make_unique<Lane>(options.seed * 1000 + static_cast<uint64_t>(i)));
  }

  int run() {
    const double start = now_s();
    for (auto& lane : lanes_) {
      lane->started_s.store(start);
      lane->thread = std::thread([this, &lane] { work(*lane, stop_); });
    }
    std::mt19937_64 random(options_.seed);
    const double interval = std::clamp(options_.seconds / 600, 0.1, 5.0);
    double next_line = 0;
    bool sound = true;
    while (sound && now_s() - start < options_.seconds) {
      std::this_thread::sleep_for(std::chrono::duration<double>(interval));
      // A caller that gives up at any instant.
      lanes_[random() % lanes_.size()]->worker.cancel();
      const double at = now_s() - start;
      curve_.push_back({at, resident_mib(), model_mib()});
      if (at >= next_line) {
        print_line(curve_.back());
        next_line += options_.seconds / 60;
      }
      for (auto& lane : lanes_) {
        if (lane->faulty.load()) sound = false;
        if (now_s() - lane->started_s.load() > options_.stall_seconds && !lane->faulty.load())
          stalled(*lane);
      }
    }
    stop_.store(true);
    const double asked = now_s();
    std::thread watchdog([&] { watch_the_end(asked); });
    for (auto& lane : lanes_) lane->thread.join();
    ended_.store(true);
    watchdog.join();
    return verdict();
  }

 private:
  uint64_t done() const {
    uint64_t sum = 0;
    for (const auto& lane : lanes_) sum += lane->done.load();
    return sum;
  }

  double model_mib() const {
    uint64_t bytes = 0;
    for (const auto& lane : lanes_) bytes += lane->worker.model_bytes();
    return static_cast<double>(bytes) / (1 << 20);
  }

  void print_line(const Sample& sample) const {
    std::printf("%7.1f s  %9llu jobs  resident %7.1f MiB  models %6.1f MiB\n", sample.at_s,
                static_cast<unsigned long long>(done()), sample.resident_mib, sample.model_mib);
    std::fflush(stdout);
  }

  // A stalled thread cannot be joined, so the process ends here.
  [[noreturn]] void stalled(const Lane& lane) const {
    std::printf("STALLED: \"%s\" has run for more than %.0f s\n", lane.job.load(),
                options_.stall_seconds);
    std::fflush(stdout);
    std::_Exit(3);
  }

  void watch_the_end(double asked) const {
    while (!ended_.load()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (now_s() - asked <= options_.stall_seconds) continue;
      for (const auto& lane : lanes_) stalled(*lane);
    }
  }

  int verdict() {
    uint64_t cancelled = 0, refused = 0;
    bool sound = true;
    for (const auto& lane : lanes_) {
      cancelled += lane->worker.cancelled();
      refused += lane->worker.refused();
      if (!lane->worker.fault().empty()) {
        std::printf("FAULT in \"%s\": %s\n", lane->job.load(), lane->worker.fault().c_str());
        sound = false;
      }
    }
    // The first quarter is the time in which arenas and caches of the allocator settle.
    const double before = middle_mib(curve_, 0.25, 0.5), after = middle_mib(curve_, 0.75, 1.0);
    double highest = 0;
    for (const Sample& sample : curve_) highest = std::max(highest, sample.resident_mib);
    // Which models live at an instant is chance; only over a long run do medians settle.
    const double bound = before * 1.05 + 8;
    std::printf(
        "%llu jobs, %llu generations cancelled, %llu inputs or allocations refused\n"
        "resident memory: median %.1f MiB in the second quarter, %.1f MiB in the last (bound of runs of "
        "10 minutes and more: %.1f), highest %.1f\n",
        static_cast<unsigned long long>(done()), static_cast<unsigned long long>(cancelled),
        static_cast<unsigned long long>(refused), before, after, bound, highest);
    if (options_.seconds >= 600 && after > bound) {
      std::printf("FAULT: memory grows\n");
      sound = false;
    }
    if (options_.report != nullptr) write_curve();
    // With every model gone: what grows with the length of a run is a leak, the rest the allocator's.
    lanes_.clear();
    const double held = held_mib();
    std::printf("when all is released: %.2f MiB allocated, resident %.1f MiB\n", held,
                resident_mib());
    if (held > 2) {
      std::printf("FAULT: memory was not given back\n");
      sound = false;
    }
    std::printf(sound ? "ok\n" : "failed\n");
    return sound ? 0 : 1;
  }

  void write_curve() const {
    std::FILE* file = std::fopen(options_.report, "w");
    if (file == nullptr) return;
    std::fprintf(file, "seconds,resident_mib,models_mib\n");
    for (const Sample& sample : curve_)
      std::fprintf(file, "%.1f,%.1f,%.1f\n", sample.at_s, sample.resident_mib, sample.model_mib);
    std::fclose(file);
  }

  Options options_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<Sample> curve_;
  std::atomic<bool> stop_{false}, ended_{false};
};

}  // namespace

int main(int argc, char** argv) { return Soak(parse(argc, argv)).run(); }
