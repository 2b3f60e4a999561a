// Activation codecs and projections: time beside that of their traffic at the copy rate of the run,
// per 1e9 values of 4096 a row. Values and payload lie in the device's memory.
#include "bench.h"
#include "codec/activation.cuh"
#include "codec/projection.cuh"
#include "covenant/rng.h"

namespace {

using namespace covenant_bench;
using namespace covenant::cuda;

constexpr int32_t kWidth = 4096;
constexpr int32_t kRank = 512;

struct Setup {
  Device& device;
  const Options& options;
  Machine machine;
  int32_t rows;
  float* values;
  float* other;
  double rate;
  uint64_t count() const { return uint64_t{kWidth} * static_cast<uint64_t>(rows); }
  int repeats() const { return machine.emulated ? 1 : 20; }
  void row(const char* id, const char* metric, double ms, double bytes_per_value) const {
    print(options, timed_row(machine, id, metric, ms, count(), bytes_per_value, rate, kNone, kNone));
  }
};

void bench_activations(const Setup& setup) {
  struct Kind {
    int32_t kind;
    const char *encode_id, *decode_id, *encode, *decode;
    double bytes;
  };
  constexpr Kind kKinds[] = {
      {COV_ACTIVATION_BF16, "A.bf16.encode", "A.bf16.decode", "bf16, encode", "bf16, decode", 6.0},
      {COV_ACTIVATION_INT8, "A.int8.encode", "A.int8.decode", "int8, encode", "int8, decode",
       5.0 + 2.0 / 64},
      {COV_ACTIVATION_INT4, "A.int4.encode", "A.int4.decode", "Hadamard and int4, encode",
       "int4 and Hadamard, decode", 4.5 + 2.0 / 64}};
  Device& device = setup.device;
  const Arena::Scope scope(device.scratch());
  auto* const body = device.scratch().take<uint8_t>(2 * setup.count());
  auto* const fault = device.scratch().take<uint32_t>(1);
  device.fill_zero(fault, sizeof *fault);
  for (const Kind& kind : kKinds) {
    const ActivationWork work{kind.kind, setup.rows, kWidth, fault};
    const double encode = median_ms(device, setup.repeats(), [&] {
      launch_activation_encode(device.stream(), work, setup.values, body);
    });
    const double decode = median_ms(device, setup.repeats(), [&] {
      launch_activation_decode(device.stream(), work, body, setup.other);
    });
    setup.row(kind.encode_id, kind.encode, encode, kind.bytes);
    setup.row(kind.decode_id, kind.decode, decode, kind.bytes);
  }
  uint32_t found = 0;
  device.download(&found, fault, sizeof found);
  device.finish();
  if (found != 0) raise(COV_INTERNAL, "the benchmark's activations are refused");
}

// One row of values that look like activations, repeated.
void fill(Device& device, float* values, uint64_t count) {
  std::vector<float> row(kWidth);
  for (uint32_t i = 0; i < kWidth; ++i) {
    const uint32_t key[2] = {1, 2};
    const uint32_t counter[4] = {i, 0, 0, 0};
    uint32_t x[4];
    cov_philox4x32(key, counter, x);
    const auto sum = static_cast<double>(x[0]) + x[1] - x[2] - x[3];
    row[i] = static_cast<float>(sum / 4294967296.0);
  }
  device.upload(values, row.data(), kWidth * sizeof(float));
  for (uint64_t done = kWidth; done < count; done *= 2)
    device.copy(values + done, values, std::min(done, count - done) * sizeof(float));
  device.finish();
}

// Products in fp32, which a copy does not bound: the ratio says how far they are from that.
void bench_projections(const Setup& setup) {
  Device& device = setup.device;
  const Arena::Scope scope(device.scratch());
  auto* const basis = device.scratch().take<float>(uint64_t{kWidth} * kRank);
  auto* const z = device.scratch().take<float>(uint64_t{kRank} * static_cast<uint64_t>(setup.rows));
  fill(device, basis, uint64_t{kWidth} * kRank);
  const cov_projection projection = {basis, nullptr, kWidth, kRank, 0};
  const int repeats = setup.machine.emulated ? 1 : 5;
  const double encode = median_ms(device, repeats, [&] {
    projection_encode(device, projection, setup.values, nullptr, setup.rows, z);
  });
  const double decode = median_ms(device, repeats, [&] {
    projection_decode(device, projection, z, nullptr, setup.rows, setup.other);
  });
  const double bytes = 4.0 + 4.0 * kRank / kWidth;
  setup.row("A.project", "projection to 512 of 4096, fp32", encode, bytes);
  setup.row("A.expand", "and back", decode, bytes);
}

void run(const Options& options) {
  const Machine here = machine();
  Device device(0, 0);
  const int32_t rows = here.emulated ? 4 : options.quick ? 4096 : 65536;
  const uint64_t count = uint64_t{kWidth} * static_cast<uint64_t>(rows);
  const Buffer<float> values(device, count);
  const Buffer<float> other(device, count);
  fill(device, values.data(), count);
  const double rate = copy_rate(device, other.data(), values.data(), count * sizeof(float));
  const Setup setup{device, options, here, rows, values.data(), other.data(), rate};
  bench_activations(setup);
  bench_projections(setup);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const cov_status status = guard([&] { run(options); });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
