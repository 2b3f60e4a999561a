// What the benchmarks of the CUDA library share: a model's worth of memory, the copy bandwidth of
// the same run, and rows.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "../../bench/rows.h"
#include "covenant/device.h"
#include "runtime/device.h"

namespace covenant_bench {

struct Machine {
  cov_device_info info{};
  bool emulated = false;
  bool h200 = false;  // what the bounds of G1 to G5 are stated for
};

inline Machine machine() {
  Machine machine;
  if (cov_device_info_at(0, &machine.info).code != COV_OK) {
    std::fprintf(stderr, "%s\n", cov_device_report());
    std::exit(77);
  }
  machine.emulated = machine.info.compute_capability == 0;
  machine.h200 = std::strstr(machine.info.name, "H200") != nullptr;
  return machine;
}

// Llama 3.2 1B (1.24e9 parameters), or fewer layers of it where memory or time is short.
inline cov_model_shape shape_for(const Machine& machine, bool quick, uint64_t bytes_per_parameter) {
  cov_model_shape shape{};
  shape.vocab_size = machine.emulated ? 500 : 128256;
  shape.hidden_size = machine.emulated ? 64 : 2048;
  shape.intermediate_size = 4 * shape.hidden_size;
  shape.layer_count = machine.emulated || quick ? 1 : 16;
  shape.head_count = 32;
  shape.kv_head_count = 8;
  shape.max_positions = 2048;
  shape.tie_word_embeddings = 1;
  shape.rope_theta = 500000;
  shape.rms_norm_eps = 1e-5;
  while (shape.layer_count > 1 &&
         cov_parameter_count(&shape) * bytes_per_parameter > machine.info.free_bytes / 10 * 9)
    --shape.layer_count;
  return shape;
}

// Median of the milliseconds that `body` takes in the stream.
template <typename Body>
double median_ms(covenant::cuda::Device& device, int repeats, const Body& body) {
  covenant::cuda::Timer timer(device.stream());
  std::vector<double> times;
  for (int i = 0; i < repeats + 2; ++i) {
    timer.start();
    body();
    const double ms = static_cast<double>(timer.stop());
    if (i >= 2) times.push_back(ms);  // the first two warm up
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Bytes read and written in a millisecond by a plain copy from `a` to `b`, `bytes` each.
inline double copy_rate(covenant::cuda::Device& device, void* to, const void* from,
                        uint64_t bytes) {
  return 2.0 * static_cast<double>(bytes) /
         median_ms(device, 10, [&] { device.copy(to, from, bytes); });
}

// A time per 1e9 parameters beside what its traffic takes at the copy rate of this run.
inline Row timed_row(const Machine& machine, const std::string& id, const std::string& metric,
                     double ms, uint64_t parameters, double bytes_per_parameter, double rate,
                     double must, double aim) {
  Row row;
  row.id = id;
  row.metric = metric;
  row.unit = "ms";
  row.value = ms * 1e9 / static_cast<double>(parameters);
  row.yardstick = "its traffic at the copy rate of this run";
  row.yardstick_value = bytes_per_parameter * 1e9 / rate;
  row.ratio = row.value / row.yardstick_value;
  row.lower_is_better = true;
  row.judge_value = true;
  row.note = machine.info.name;
  if (machine.h200) {
    row.must = must;
    row.aim = aim;
  } else if (machine.emulated) {
    row.note += ": shows that it runs, no measurement";
  } else {
    row.note += "; the bounds are stated for an H200";
  }
  return row;
}

}  // namespace covenant_bench
