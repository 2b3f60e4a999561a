// G4: the gradient norm and one step of AdamW, 38 bytes of traffic a parameter: the gradient read for
// the norm, then fp32 gradient, parameter and both moments read and written (the gradient as zeros),
// and the bf16 copy written.
#include "bench.h"
#include "engine/optimizer.cuh"
#include "rng/initial.h"

namespace {

using namespace covenant_bench;
using namespace covenant::cuda;

void run(const Options& options) {
  const Machine here = machine();
  Device device(0, 0);
  const cov_model_shape shape = shape_for(here, options.quick, 19);
  const uint64_t length = cov_parameter_count(&shape);
  const auto count = static_cast<int64_t>(length);
  const Buffer<float> p(device, length);
  const Buffer<float> g(device, length);
  const Buffer<float> m(device, length);
  const Buffer<float> v(device, length);
  const Buffer<uint16_t> shadow(device, length);
  std::vector<AdamwRange> ranges;
  for (int64_t first = 0; first < count; first += kAdamwChunk) {
    const int64_t rest = std::min<int64_t>(kAdamwChunk, count - first);
    ranges.push_back({first, static_cast<int32_t>(rest), 1});
  }
  const auto range_count = static_cast<int64_t>(ranges.size());
  const Buffer<AdamwRange> list(device, ranges.size());
  const Buffer<double> sums(device, ranges.size());
  device.upload(list.data(), ranges.data(), ranges.size() * sizeof(AdamwRange));
  const double rate = copy_rate(device, v.data(), m.data(), 4 * length);
  initial_parameters(device, shape, 1, p.data(), length);
  initial_parameters(device, shape, 2, g.data(), length);
  device.fill_zero(m.data(), 4 * length);
  device.fill_zero(v.data(), 4 * length);
  covenant::AdamwScalars scalars{};
  scalars.decay = 0.9999f;
  scalars.beta1 = 0.9f;
  scalars.one_minus_beta1 = 0.1f;
  scalars.beta2 = 0.95f;
  scalars.one_minus_beta2 = 0.05f;
  scalars.step_size = 1e-3f;
  scalars.inv_bias2 = 1.0f;
  scalars.epsilon = 1e-8f;
  scalars.grad_scale = 1.0f;
  const int repeats = here.emulated ? 1 : 20;
  const double ms = median_ms(device, repeats, [&] {
    square_sums(device.stream(), g.data(), count, sums.data());
    adamw(device.stream(), list.data(), range_count, p.data(), g.data(), m.data(), v.data(),
          shadow.data(), scalars);
  });
  print(options, timed_row(here, "G4", "AdamW, gradient norm, bf16 copy", ms, length, 38.0, rate,
                           10.0, 8.0));
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const cov_status status = guard([&] { run(options); });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
