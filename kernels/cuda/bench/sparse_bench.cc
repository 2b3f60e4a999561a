// G1: compressing, 16 bytes of traffic a parameter. G2: checking, clipping, summing and applying 20
// updates, 8 bytes of parameters and their bf16 copy beside the updates themselves. Data lies in the
// device's memory; times are medians, scaled to 1e9 parameters.
#include <memory>

#include "bench.h"
#include "rng/initial.h"
#include "sparse/compress.h"
#include "sparse/merge.h"

namespace {

using namespace covenant_bench;
using namespace covenant::cuda;

constexpr cov_sparse_format kFormat = {2, 64};
constexpr int32_t kPeers = 20;

struct Setup {
  Device& device;
  Machine machine;
  cov_model_shape shape;
  std::vector<cov_tensor_info> tensors;
  HostPlan plan;
  uint64_t length;
  float* base;
  float* current;
  float* feedback;
  std::vector<uint8_t*> bodies;
};

void compress_into(const Setup& setup, uint8_t* body, unsigned long long* fault) {
  const cov_sparse_source source{setup.base, setup.current, setup.feedback, setup.length, 0.95f};
  const Arena::Scope scope(setup.device.scratch());
  compress_on_device(setup.device, source, setup.plan, body, fault);
}

double bench_compress(const Options& options, const Setup& setup) {
  Device& device = setup.device;
  const double rate = copy_rate(device, setup.feedback, setup.current, 4 * setup.length);
  const Arena::Scope scope(device.scratch());
  auto* const fault = device.scratch().take<unsigned long long>(1);
  initial_parameters(device, setup.shape, 1, setup.base, setup.length);
  for (int32_t p = 0; p < kPeers; ++p) {
    initial_parameters(device, setup.shape, static_cast<uint64_t>(2 + p), setup.current,
                       setup.length);
    device.fill_zero(setup.feedback, 4 * setup.length);
    compress_into(setup, setup.bodies[static_cast<size_t>(p)], fault);
  }
  const int repeats = setup.machine.emulated ? 1 : 20;
  auto* const body = device.scratch().take<uint8_t>(setup.plan.body_bytes);
  const double ms = median_ms(device, repeats, [&] { compress_into(setup, body, fault); });
  unsigned long long found = 0;
  device.download(&found, fault, sizeof found);
  device.finish();
  if (found != ~0ull) raise(COV_INTERNAL, "the benchmark's values cannot be compressed");
  print(options, timed_row(setup.machine, "G1", "compress, 2 bits, 64 of 4096", ms, setup.length,
                           16.0, rate, 6.0, 4.2));
  return rate;
}

void bench_merge(const Options& options, const Setup& setup, double rate) {
  Device& device = setup.device;
  const Arena::Scope scope(device.scratch());
  Arena& scratch = device.scratch();
  const SparsePlan plan = setup.plan.upload(device);
  const uint64_t cells = setup.tensors.size() * kPeers;
  auto** const bodies = scratch.take<const uint8_t*>(kPeers);
  auto* const weights = scratch.take<float>(kPeers);
  auto* const counts = scratch.take<uint32_t>(cells * 512);
  auto* const top_codes = scratch.take<uint32_t>(cells);
  auto* const norms = scratch.take<double>(cells);
  auto* const factors = scratch.take<float>(cells);
  auto* const fault = scratch.take<uint32_t>(1);
  const std::vector<float> ones(kPeers, 1.0f);
  device.upload(bodies, setup.bodies.data(), kPeers * sizeof(uint8_t*));
  device.upload(weights, ones.data(), kPeers * sizeof(float));
  device.fill_zero(fault, sizeof *fault);
  device.finish();
  const MergeWork work{bodies, kPeers, weights, kPeers, COV_MERGE_CONTRIBUTORS, factors, 0.4f};
  MergeOutput output{};
  output.parameters = setup.base;
  output.shadow = reinterpret_cast<uint16_t*>(setup.current);
  const auto check = [&] {
    device.fill_zero(counts, cells * 512 * sizeof(uint32_t));
    device.fill_zero(top_codes, cells * sizeof(uint32_t));
    launch_check(device.stream(), plan, bodies, kPeers, top_codes, counts, fault);
    launch_norms(device.stream(), plan, bodies, kPeers, counts, norms, kPeers);
    launch_factors(device.stream(), plan, kPeers, norms, factors);
  };
  const auto apply = [&] { launch_merge(device.stream(), plan, work, output); };
  const int repeats = setup.machine.emulated ? 1 : 20;
  const double check_ms = median_ms(device, repeats, check);
  const double apply_ms = median_ms(device, repeats, apply);
  const double ms = median_ms(device, repeats, [&] {
    check();
    apply();
  });
  uint32_t found = 0;
  device.download(&found, fault, sizeof found);
  device.finish();
  if (found != 0) raise(COV_INTERNAL, "the benchmark's updates are refused");
  const double updates = static_cast<double>(kPeers) *
                         static_cast<double>(setup.plan.body_bytes) /
                         static_cast<double>(setup.length);
  const auto row = [&](const char* id, const char* metric, double time, double bytes, double must,
                       double aim) {
    print(options, timed_row(setup.machine, id, metric, time, setup.length, bytes, rate, must, aim));
  };
  row("G2", "check, clip, sum 20, apply, bf16 copy", ms, 10.0 + updates, 4.0, 2.8);
  row("G2.check", "of it: checks and clipping factors", check_ms, updates, kNone, kNone);
  row("G2.apply", "of it: sum, apply, bf16 copy", apply_ms, 10.0 + updates, kNone, kNone);
}

void run(const Options& options) {
  const Machine here = machine();
  Device device(0, 0);
  const cov_model_shape shape = shape_for(here, options.quick, 14);
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  const auto count = static_cast<int32_t>(tensors.size());
  covenant::cuda::require(cov_tensor_table(&shape, tensors.data(), count));
  const uint64_t length = cov_parameter_count(&shape);
  const Buffer<float> base(device, length);
  const Buffer<float> current(device, length);
  const Buffer<float> feedback(device, length);
  Setup setup{device, here, shape, tensors, HostPlan(tensors.data(), count, kFormat), length,
              base.data(), current.data(), feedback.data(), {}};
  std::vector<Buffer<uint8_t>> bodies;
  for (int32_t p = 0; p < kPeers; ++p) {
    bodies.emplace_back(device, setup.plan.body_bytes);
    setup.bodies.push_back(bodies.back().data());
  }
  const double rate = bench_compress(options, setup);
  bench_merge(options, setup, rate);
  Row row;
  row.id = "G.copy";
  row.metric = "copy in the device's memory, read and written";
  row.value = rate / 1e6;
  row.unit = "GB/s";
  row.note = here.info.name;
  print(options, row);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const cov_status status = guard([&] { run(options); });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
