// C6: the outer step of several peers over several rounds, on the CPU and on a CUDA device. What each
// round makes on either side (updates, error feedback, the merged update, parameters, state roots) is
// compared byte by byte. Without a device the emulated library takes its place.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "covenant/device.h"
#include "covenant/hash.h"
#include "covenant/model.h"
#include "covenant/rng.h"
#include "rows.h"

namespace {

using namespace covenant_bench;

constexpr int kPeers = 4, kRounds = 3;
constexpr float kRate = 0.7f, kDecay = 0.95f;
constexpr char kMetric[] = "outer step, bytes that differ between CPU and CUDA";

// Bytes that both sides have made, and those of them that differ.
struct Compared {
  uint64_t bytes = 0, different = 0;

  void add(const void* cpu, const void* device, uint64_t count) {
    const auto* const a = static_cast<const uint8_t*>(cpu);
    const auto* const b = static_cast<const uint8_t*>(device);
    bytes += count;
    for (uint64_t i = 0; i < count; ++i) different += a[i] != b[i];
  }
};

// Floats on the device, freed when it is closed.
struct OnDevice {
  cov_device* device;
  float* data = nullptr;
  uint64_t bytes;

  OnDevice(cov_device* on, const std::vector<float>& values)
      : device(on), bytes(values.size() * sizeof(float)) {
    void* pointer = nullptr;
    require(cov_device_allocate(device, bytes, &pointer));
    data = static_cast<float*>(pointer);
    write(values);
  }
  void write(const std::vector<float>& values) {
    require(cov_device_upload(device, data, values.data(), bytes));
  }
  void compare(const std::vector<float>& cpu, Compared& into) const {
    std::vector<float> here(cpu.size());
    require(cov_device_download(device, here.data(), data, bytes));
    into.add(cpu.data(), here.data(), bytes);
  }
};

struct Step {
  cov_device* device;
  cov_sparse_format format;
  std::vector<cov_tensor_info> tensors;
  std::vector<float> theta, current;
  OnDevice device_theta, device_current;
  std::vector<std::vector<float>> feedback;
  std::vector<OnDevice> device_feedback;
  Compared compared;

  Step(cov_device* on, cov_sparse_format with, std::vector<cov_tensor_info> table,
       const std::vector<float>& initial)
      : device(on), format(with), tensors(std::move(table)), theta(initial), current(initial),
        device_theta(on, initial), device_current(on, initial),
        feedback(kPeers, std::vector<float>(initial.size())) {
    for (const auto& zeros : feedback) device_feedback.emplace_back(on, zeros);
  }
  int32_t count() const { return static_cast<int32_t>(tensors.size()); }

  // Parameters as a peer may have trained them: steps of all sizes, a scale for each row of 512.
  void train(int round, int peer) {
    const auto key = static_cast<uint8_t>(1 + kPeers * round + peer);
    const uint8_t seed[32] = {key};
    for (size_t i = 0; i < theta.size(); ++i) {
      const double u = cov_uniform_at(seed, static_cast<uint32_t>(i)) - 0.5;
      const double scale = 1e-2 * cov_uniform_at(seed, static_cast<uint32_t>(~(i / 512)));
      current[i] = theta[i] - static_cast<float>(scale * u * u * u);
    }
    device_current.write(current);
  }

  std::vector<uint8_t> compress(int peer) {
    const auto p = static_cast<size_t>(peer);
    uint64_t bytes = 0, kept = 0;
    require(cov_sparse_size(tensors.data(), count(), format, &bytes, &kept));
    std::vector<uint8_t> body(bytes), device_body(bytes);
    const cov_sparse_source source = {theta.data(), current.data(), feedback[p].data(),
                                      theta.size(), kDecay};
    const cov_sparse_source there = {device_theta.data, device_current.data,
                                     device_feedback[p].data, theta.size(), kDecay};
    require(cov_sparse_compress(&source, tensors.data(), count(), format, 0, body.data(), bytes));
    require(cov_device_sparse_compress(device, &there, tensors.data(), count(), format,
                                       device_body.data(), bytes));
    compared.add(body.data(), device_body.data(), bytes);
    device_feedback[p].compare(feedback[p], compared);
    return body;
  }

  void apply(const cov_merge_input& input) {
    std::vector<int32_t> skipped(tensors.size());
    int32_t skips = 0;
    cov_bytes merged = {}, device_merged = {};
    require(cov_sparse_merge(&input, tensors.data(), count(), format, 0, &merged));
    require(cov_device_sparse_merge(device, &input, tensors.data(), count(), format,
                                    &device_merged));
    const uint64_t both = std::min(merged.length, device_merged.length);
    compared.add(merged.data, device_merged.data, both);
    compared.different += std::max(merged.length, device_merged.length) - both;
    require(cov_merged_apply(theta.data(), theta.size(), merged.data, merged.length,
                             tensors.data(), count(), kRate, skipped.data(), &skips));
    require(cov_device_sparse_step(device, device_theta.data, nullptr, theta.size(), &input,
                                   tensors.data(), count(), format, kRate, skipped.data(), &skips));
    cov_bytes_free(&merged);
    cov_bytes_free(&device_merged);
    device_theta.compare(theta, compared);
    uint8_t root[COV_HASH_BYTES], device_root[COV_HASH_BYTES];
    require(cov_state_root(theta.data(), theta.size(), tensors.data(), count(), 0, root));
    require(cov_device_state_root(device, device_theta.data, theta.size(), tensors.data(), count(),
                                  device_root));
    compared.add(root, device_root, sizeof root);
  }

  void round(int index) {
    std::vector<std::vector<uint8_t>> bodies;
    std::vector<const uint8_t*> data;
    std::vector<uint64_t> bytes;
    for (int peer = 0; peer < kPeers; ++peer) {
      train(index, peer);
      bodies.push_back(compress(peer));
    }
    for (const auto& body : bodies) {
      data.push_back(body.data());
      bytes.push_back(body.size());
    }
    const float weights[kPeers] = {1.0f, 0.5f, 0.25f, 0.7f};
    apply({data.data(), bytes.data(), weights, kPeers, COV_MERGE_CONTRIBUTORS, 1});
  }
};

void measure(const Options& options, cov_device* device, int mode) {
  cov_device_info info = {};
  require(cov_device_info_at(0, &info));
  // The emulation takes a thousand times longer than a device.
  const bool small = options.quick || std::strstr(info.name, "emulated") != nullptr;
  const cov_model_shape shape =
      small ? cov_model_shape{600, 64, 176, 2, 4, 2, 64, 1, 10000.0, 1e-5}
            : cov_model_shape{4096, 512, 1408, 4, 8, 4, 64, 1, 10000.0, 1e-5};
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  require(cov_tensor_table(&shape, tensors.data(), cov_tensor_count(&shape)));
  std::vector<float> initial(cov_parameter_count(&shape));
  require(cov_initial_parameters(&shape, 2026, initial.data(), initial.size()));
  Step step(device, {mode, 64}, tensors, initial);
  for (int round = 0; round < kRounds; ++round) step.round(round);
  char note[240];
  std::snprintf(note, sizeof note, "%s; %d peers, %d rounds, %.2g M parameters", info.name, kPeers,
                kRounds, static_cast<double>(initial.size()) / 1e6);
  print(options, {.id = "C6." + std::to_string(mode) + "bit",
                  .metric = kMetric,
                  .value = static_cast<double>(step.compared.different),
                  .unit = "bytes",
                  .yardstick = "bytes compared",
                  .yardstick_value = static_cast<double>(step.compared.bytes),
                  .must = 0,
                  .aim = 0,
                  .note = note,
                  .lower_is_better = true,
                  .judge_value = true});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
#ifdef COVENANT_EMULATED_LIBRARY
  // The library is loaded once in a process: the program starts again with the other one.
  if (cov_device_count() == 0 && std::getenv("COVENANT_CUDA_LIBRARY") == nullptr) {
    setenv("COVENANT_CUDA_LIBRARY", COVENANT_EMULATED_LIBRARY, 1);
    execv(argv[0], argv);
  }
#endif
  if (cov_device_count() == 0) {
    print(options, {.id = "C6", .metric = kMetric, .unit = "bytes", .note = cov_device_report()});
    return 0;
  }
  cov_device* device = nullptr;
  require(cov_device_open(0, 0, &device));
  for (const int mode : {2, 1}) measure(options, device, mode);
  cov_device_close(device);
}
