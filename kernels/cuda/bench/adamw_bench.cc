// G4: the gradient norm and one AdamW step. 36 bytes of traffic a parameter: the norm reads 4, the step
// reads 16 and writes 16; 2 more with the bf16 copy.
#include "bench.h"
#include "engine/optimizer.cuh"

namespace {

using namespace covenant_bench;
using namespace covenant::cuda;

void run(const Options& options) {
  const Machine here = machine();
  Device device(0, 0);
  const uint64_t count = here.emulated ? 100'000 : options.quick ? 100'000'000 : 1'000'000'000;
  const Buffer<float> p(device, count), g(device, count), m(device, count), v(device, count);
  const Buffer<uint16_t> shadow(device, count);
  for (const Buffer<float>* const buffer : {&p, &g, &m, &v})
    device.fill_zero(buffer->data(), count * sizeof(float));
  std::vector<AdamwRange> ranges;
  for (uint64_t i = 0; i < count; i += kAdamwChunk)
    ranges.push_back({static_cast<int64_t>(i),
                      static_cast<int32_t>(std::min<uint64_t>(kAdamwChunk, count - i)), 1});
  const Buffer<AdamwRange> device_ranges(device, ranges.size());
  device.upload(device_ranges.data(), ranges.data(), ranges.size() * sizeof(AdamwRange));
  const Buffer<double> sums(device, ranges.size());
  std::vector<double> host(ranges.size());
  const double rate = copy_rate(device, p.data(), m.data(), count * sizeof(float));
  const covenant::AdamwScalars scalars = {0.999f, 0.9f, 0.1f, 0.95f, 0.05f, 1e-3f, 1.0f, 1e-8f, 1.0f};
  const int repeats = here.emulated ? 1 : 20;
  double total = 0.0;
  const auto norm = [&] {
    square_sums(device.stream(), g.data(), static_cast<int64_t>(count), sums.data());
    device.download(host.data(), sums.data(), host.size() * sizeof(double));
    device.finish();
    for (const double sum : host) total += sum;
  };
  const auto step = [&](uint16_t* to) {
    adamw(device.stream(), device_ranges.data(), static_cast<int64_t>(ranges.size()), p.data(),
          g.data(), m.data(), v.data(), to, scalars);
  };
  const double both = median_ms(device, repeats, [&] {
    norm();
    step(nullptr);
  });
  const double norm_ms = median_ms(device, repeats, norm);
  const double shadow_ms = median_ms(device, repeats, [&] { step(shadow.data()); });
  if (total != 0.0) raise(COV_INTERNAL, "the norm of zeros is %g", total);
  const auto row = [&](const char* id, const char* metric, double ms, double bytes, double must,
                       double aim) {
    print(options, timed_row(here, id, metric, ms, count, bytes, rate, must, aim));
  };
  row("G4", "norm and AdamW step", both, 36.0, 10.0, 8.0);
  row("G4.norm", "of it: the norm", norm_ms, 4.0, kNone, kNone);
  row("G4.bf16", "the step with the bf16 copy", shadow_ms, 34.0, kNone, kNone);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const cov_status status = guard([&] { run(options); });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
