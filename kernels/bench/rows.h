// What every benchmark program prints and how it measures. With --json each row is one line of JSON
// on stdout and nothing else is; without it, a table. Judging a row against its bounds is the
// runner's part (scripts/bench).
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "covenant/status.h"

namespace covenant_bench {

// What is not known or does not apply; null in JSON.
inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Options {
  bool json = false;
  bool quick = false;  // a short form for a look, never a result to quote
  std::string only = {};  // what the ids of the wanted rows begin with

  // Whether rows whose ids begin with `prefix` are wanted.
  bool wants(const std::string& prefix) const {
    const size_t both = std::min(prefix.size(), only.size());
    return prefix.compare(0, both, only, 0, both) == 0;
  }
};

inline Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      options.json = true;
    } else if (std::strcmp(argv[i], "--quick") == 0) {
      options.quick = true;
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      options.only = argv[++i];
    } else {
      std::fprintf(stderr, "Unknown argument %s; there are --json, --quick and --only ID.\n",
                   argv[i]);
      std::exit(2);
    }
  }
  return options;
}

// One figure. `ratio` is value / yardstick_value, or the median of that over rounds. `must` and
// `aim` bound it, or the value where `judge_value`: from below, or from above where
// `lower_is_better`. A row without `must` informs only. A row whose yardstick runs as a program of
// its own (bench/yardsticks) leaves yardstick_value and ratio out; the runner joins them by id.
struct Row {
  std::string id;      // begins with an id of the table of goals: "C3.bf16.2048"
  std::string metric;  // what was measured, in words
  double value = kNone;
  std::string unit;
  std::string yardstick = {};  // a limit measured in the same run, or the library compared with
  double yardstick_value = kNone;
  double ratio = kNone;
  double must = kNone;
  double aim = kNone;
  std::string note = {};  // a missing yardstick: what to install
  bool lower_is_better = false;
  bool judge_value = false;
};

namespace detail {
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out + '"';
}

inline std::string number(double value, const char* format) {
  if (!std::isfinite(value)) return {};
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

inline std::string json_number(double value) {
  const std::string text = number(value, "%.6g");
  return text.empty() ? "null" : text;
}
}  // namespace detail

inline void print(const Options& options, const Row& row) {
  using detail::json_number, detail::number, detail::quoted;
  if (options.json) {
    std::printf(
        "{\"id\":%s,\"metric\":%s,\"value\":%s,\"unit\":%s,\"yardstick\":%s,\"yardstickValue\":%s,"
        "\"ratio\":%s,\"must\":%s,\"aim\":%s,\"note\":%s,\"lowerIsBetter\":%s,\"judgeValue\":%s}\n",
        quoted(row.id).c_str(), quoted(row.metric).c_str(), json_number(row.value).c_str(),
        quoted(row.unit).c_str(), quoted(row.yardstick).c_str(),
        json_number(row.yardstick_value).c_str(), json_number(row.ratio).c_str(),
        json_number(row.must).c_str(), json_number(row.aim).c_str(), quoted(row.note).c_str(),
        row.lower_is_better ? "true" : "false", row.judge_value ? "true" : "false");
  } else {
    std::printf("%-18s %-44s %10s %-10s", row.id.c_str(), row.metric.c_str(),
                number(row.value, "%.4g").c_str(), row.unit.c_str());
    if (std::isfinite(row.ratio)) std::printf(" ratio %.3g", row.ratio);
    if (!row.yardstick.empty())
      std::printf(" to %s %s", row.yardstick.c_str(), number(row.yardstick_value, "%.4g").c_str());
    if (std::isfinite(row.must))
      std::printf(" (must %s %.3g)", row.lower_is_better ? "<=" : ">=", row.must);
    if (!row.note.empty()) std::printf("  %s", row.note.c_str());
    std::printf("\n");
  }
  std::fflush(stdout);
}

// ---- measuring -----------------------------------------------------------------------------

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename Body>
double time_s(const Body& body) {
  const double start = now_s();
  body();
  return now_s() - start;
}

inline double median(std::vector<double> values) {
  if (values.empty()) return kNone;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Shortest of repeats of `body` within about `seconds`, at least three, after one that warms up.
template <typename Body>
double best_s(double seconds, const Body& body) {
  body();
  double best = std::numeric_limits<double>::infinity();
  const double end = now_s() + seconds;
  for (int i = 0; i < 3 || now_s() < end; ++i) best = std::min(best, time_s(body));
  return best;
}

// Two bodies in turn, so that a neighbour's load meets both: the shortest time of each, and the
// median over the rounds of second / first (how many times faster the first is).
struct Compared {
  double first_s;
  double second_s;
  double speedup;
};

template <typename First, typename Second>
Compared compare(int rounds, const First& first, const Second& second) {
  first();
  second();
  Compared result{std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity(),
                  kNone};
  std::vector<double> ratios;
  for (int i = 0; i < rounds; ++i) {
    const double a = time_s(first), b = time_s(second);
    result.first_s = std::min(result.first_s, a);
    result.second_s = std::min(result.second_s, b);
    ratios.push_back(b / a);
  }
  result.speedup = median(ratios);
  return result;
}

// A benchmark whose subject fails has nothing to report.
inline void require(cov_status status) {
  if (status.code == COV_OK) return;
  std::fprintf(stderr, "%s\n", status.message);
  std::exit(1);
}

}  // namespace covenant_bench
