// C1: compressing against the memory floor of 16 bytes a parameter (three reads, one write).
// C2: the updates of 20 peers, from their bytes into the parameters, against the floor of 8.4 bytes
// a parameter (one read, one write, the updates).
// Hashing: the root of a state, against one message at a time on each thread.
#include <cstdint>
#include <string>
#include <vector>

#include "covenant/hash.h"
#include "covenant/model.h"
#include "covenant/rng.h"
#include "covenant/sparse.h"
#include "limits.h"
#include "rows.h"

namespace {

using namespace covenant_bench;

constexpr cov_sparse_format kTwoBit{2, 64};

// Matrices of a model with `matrices` times 4 Mi parameters, and a norm after each.
std::vector<cov_tensor_info> table(int matrices) {
  std::vector<cov_tensor_info> tensors;
  uint64_t offset = 0;
  for (int i = 0; i < 2 * matrices; ++i) {
    cov_tensor_info info{};
    std::snprintf(info.name, sizeof info.name, "tensor.%d", i);
    info.rank = i % 2 == 0 ? 2 : 1;
    info.dims[0] = 2048;
    info.dims[1] = i % 2 == 0 ? 2048 : 1;
    info.offset = offset;
    info.length = static_cast<uint64_t>(info.dims[0] * info.dims[1]);
    offset += info.length;
    tensors.push_back(info);
  }
  return tensors;
}

// Heavy-tailed values with a scale of its own for each row, cheap to make in numbers: sums and
// products of counter hashes.
void fill(std::vector<float>& values, uint64_t seed, float scale) {
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
  float row = 1;
  for (size_t i = 0; i < values.size(); ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    if (i % 2048 == 0) row = 0.5f + static_cast<float>(x >> 54) / 1024;
    const float sum = static_cast<float>(static_cast<int32_t>(x & 0xffff) +
                                         static_cast<int32_t>(x >> 16 & 0xffff) +
                                         static_cast<int32_t>(x >> 32 & 0xffff) - 98302) /
                      65536;
    values[i] = scale * row * sum * sum * sum;
  }
}

struct Model {
  std::vector<cov_tensor_info> tensors;
  std::vector<float> base;
  std::vector<float> current;
  std::vector<float> feedback;
  std::vector<uint8_t> body;

  Model(int matrices, cov_sparse_format format) : tensors(table(matrices)) {
    const size_t count = tensors.back().offset + tensors.back().length;
    base.resize(count);
    current.resize(count);
    feedback.resize(count);
    fill(base, 1, 0.05f);
    fill(current, 2, 0.001f);
    for (size_t i = 0; i < count; ++i) current[i] = base[i] - current[i];
    fill(feedback, 3, 0.001f);
    uint64_t bytes = 0;
    require(cov_sparse_size(tensors.data(), static_cast<int32_t>(tensors.size()), format, &bytes,
                            nullptr));
    body.resize(bytes);
  }

  void compress(cov_sparse_format format, int threads) {
    const cov_sparse_source source{base.data(), current.data(), feedback.data(), base.size(),
                                   0.95f};
    require(cov_sparse_compress(&source, tensors.data(), static_cast<int32_t>(tensors.size()),
                                format, threads, body.data(), body.size()));
  }
};

void bench_compress(const Options& options, const std::string& path) {
  require(cov_set_cpu_path(path.c_str()));
  for (const int threads : {1, 2}) {
    for (const int mode : {2, 1}) {
      const cov_sparse_format format{mode, 64};
      Model model(options.quick ? 4 : 16, format);
      const double gigabytes = 16e-9 * static_cast<double>(model.base.size());
      // Limit and subject in turn, so that a neighbour's load meets both.
      double limit = 0;
      double best = 1e9;
      std::vector<double> ratios;
      for (int round = 0; round < (options.quick ? 2 : 5); ++round) {
        const double here = memory_gbps(threads, options);
        const double time = best_s(0.1, [&] { model.compress(format, threads); });
        limit = std::max(limit, here);
        best = std::min(best, time);
        ratios.push_back(gigabytes / time / here);
      }
      const bool judged = threads == 2 && path == "avx512";
      print(options, {.id = "C1." + std::to_string(mode) + "bit." + path + ".t" +
                            std::to_string(threads),
                      .metric = "compress, share of 16 B/parameter at memory speed",
                      .value = gigabytes / best,
                      .unit = "GB/s",
                      .yardstick = "memory floor from triad",
                      .yardstick_value = limit,
                      .ratio = median(ratios),
                      .must = judged ? 0.5 : kNone,
                      .aim = judged ? 0.75 : kNone});
    }
  }
  require(cov_set_cpu_path(nullptr));
}

void bench_update(const Options& options, const std::string& path) {
  require(cov_set_cpu_path(path.c_str()));
  constexpr int kPeers = 20;
  Model model(options.quick ? 4 : 16, kTwoBit);
  std::vector<std::vector<uint8_t>> bodies;
  for (int r = 0; r < kPeers; ++r) {
    fill(model.feedback, 100 + static_cast<uint64_t>(r), 0.001f);
    model.compress(kTwoBit, 2);
    bodies.push_back(model.body);
  }
  const uint8_t* pointers[kPeers];
  uint64_t sizes[kPeers];
  float weights[kPeers];
  for (size_t r = 0; r < kPeers; ++r) {
    pointers[r] = bodies[r].data();
    sizes[r] = bodies[r].size();
    weights[r] = 1.0f;
  }
  const cov_merge_input input{pointers, sizes, weights, kPeers, COV_MERGE_CONTRIBUTORS, 1};
  std::vector<int32_t> skipped(model.tensors.size());
  int32_t skipped_count = 0;
  const auto count = static_cast<int32_t>(model.tensors.size());
  const double gigabytes = 1e-9 * (8.0 * static_cast<double>(model.base.size()) +
                                   kPeers * static_cast<double>(model.body.size()));
  for (const int threads : {1, 2}) {
    double limit = 0;
    double best = 1e9;
    std::vector<double> ratios;
    for (int round = 0; round < (options.quick ? 2 : 5); ++round) {
      const double here = memory_gbps(threads, options);
      const double time = best_s(0.1, [&] {
        require(cov_sparse_update(model.base.data(), model.base.size(), &input,
                                  model.tensors.data(), count, kTwoBit, 0.1f, threads,
                                  skipped.data(), &skipped_count));
      });
      limit = std::max(limit, here);
      best = std::min(best, time);
      ratios.push_back(gigabytes / time / here);
    }
    const bool judged = threads == 2 && path == "avx512";
    print(options, {.id = "C2." + path + ".t" + std::to_string(threads),
                    .metric = "update from 20 peers, share of 8.4 B/parameter",
                    .value = gigabytes / best,
                    .unit = "GB/s",
                    .yardstick = "memory floor from triad",
                    .yardstick_value = limit,
                    .ratio = median(ratios),
                    .must = judged ? 0.4 : kNone,
                    .aim = judged ? 0.65 : kNone});
  }
  require(cov_set_cpu_path(nullptr));
}

void bench_hash(const Options& options) {
  const Model model(options.quick ? 4 : 16, kTwoBit);
  const auto count = static_cast<int32_t>(model.tensors.size());
  const double gigabytes = 4e-9 * static_cast<double>(model.base.size());
  uint8_t digest[COV_HASH_BYTES];
  for (const int threads : {1, 2}) {
    const Compared times = compare(
        options.quick ? 3 : 7,
        [&] {
          require(cov_state_root(model.base.data(), model.base.size(), model.tensors.data(), count,
                                 threads, digest));
        },
        [&] { cov_sha256(model.base.data(), 4 * model.base.size(), digest); });
    print(options, {.id = "hash.t" + std::to_string(threads),
                    .metric = "state root, SHA-256 of pieces of 1 MiB",
                    .value = gigabytes / times.first_s,
                    .unit = "GB/s",
                    .yardstick = "one message, one thread",
                    .yardstick_value = gigabytes / times.second_s,
                    .ratio = times.speedup});
    // Beside OpenSSL's, which bench/yardsticks/sparse.ts measures.
    print(options, {.id = "hash.openssl.t" + std::to_string(threads),
                    .metric = "state root, SHA-256 of pieces of 1 MiB",
                    .value = gigabytes / times.first_s,
                    .unit = "GB/s"});
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  for (const char* path : {"avx512", "avx2", "portable"}) {
    if (options.wants("C1") && cov_set_cpu_path(path).code == COV_OK)
      bench_compress(options, path);
  }
  for (const char* path : {"avx512", "avx2", "portable"}) {
    if (options.wants(std::string("C2.") + path) && cov_set_cpu_path(path).code == COV_OK)
      bench_update(options, path);
  }
  if (options.wants("hash")) bench_hash(options);
  return 0;
}
