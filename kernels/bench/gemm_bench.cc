// C3: matrix products of one core against oneDNN in the same run, each with its weights in the
// layout it likes best (packed once, as both are used), and from plain matrices with the packing
// counted. The share of the core's peak says how much is left. Times are processor time.
#include <cstdio>
#include <memory>
#include <vector>

#include "covenant/model.h"
#include "engine/gemm.h"
#include "engine/memory.h"
#include "limits.h"
#include "rows.h"

#if defined(COVENANT_HAVE_DNNL)
#include <dlfcn.h>

#include <dnnl.hpp>
#endif

using namespace covenant_bench;
using covenant::Bf16;
using covenant::Buffer;
using covenant::Compute;

namespace {

template <typename Body>
double cpu_time_s(const Body& body) {
  const double start = detail::thread_s();
  body();
  return detail::thread_s() - start;
}

// Both sides have their matrices in memory as a model has its own: on large pages where there are
// any.
covenant::Memory memory(0);

struct Shape {
  int64_t m, n, k;
  double flop() const { return 2.0 * static_cast<double>(m * n * k); }
};

// The product of this package: x (m, k) * w (n, k)^T.
class Ours {
 public:
  Ours(const Shape& shape, Compute format)
      : shape_(shape),
        format_(format),
        x_(memory, shape.m * shape.k),
        w_(memory, shape.n * shape.k),
        out_(memory, shape.m * shape.n),
        rounded_(memory, covenant::bf16_size(shape.m, shape.k)),
        panels_(memory, covenant::packed_bytes(format, shape.k, shape.n)),
        packed_{format, shape.k, shape.n, panels_.data()} {
    std::fill_n(x_.data(), x_.count(), 0.5f);
    std::fill_n(w_.data(), w_.count(), 0.25f);
    prepare();
  }
  void prepare() {
    covenant::pack_forward(pool_, w_.data(), packed_);
    operand_ = covenant::operand(pool_, format_, x_.data(), shape_.m, shape_.k, rounded_.data());
  }
  void multiply() {
    covenant::multiply(pool_, operand_, shape_.m, packed_, nullptr, out_.data());
  }

 private:
  Shape shape_;
  Compute format_;
  covenant::ThreadPool pool_{1};
  Buffer<float> x_, w_, out_;
  Buffer<Bf16> rounded_;
  Buffer<char> panels_;
  covenant::PackedMatrix packed_;
  covenant::Operand operand_;
};

#if defined(COVENANT_HAVE_DNNL)

// The same product in oneDNN: weights reordered once to what it asks for, or plain.
class Dnnl {
 public:
  Dnnl(const Shape& s, Compute format, bool plain)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using md = dnnl::memory::desc;
    using tag = dnnl::memory::format_tag;
    const auto type = format == Compute::kF32 ? dnnl::memory::data_type::f32
                                              : dnnl::memory::data_type::bf16;
    const md x({s.m, s.k}, type, tag::ab), w({s.k, s.n}, type, tag::ba);
    const md y({s.m, s.n}, dnnl::memory::data_type::f32, tag::ab);
    const md asked = plain ? w : md({s.k, s.n}, type, tag::any);
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(x, asked, y), engine_);
    product_ = dnnl::matmul(description);
    x_ = filled(x, type, s.m * s.k);
    dnnl::memory weights = filled(w, type, s.n * s.k);
    if (description.weights_desc() != w) {
      dnnl::memory reordered = space(description.weights_desc());
      dnnl::reorder(weights, reordered).execute(stream_, weights, reordered);
      weights = reordered;
    }
    w_ = weights;
    y_ = space(y);
    stream_.wait();
  }
  void multiply() {
    product_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  dnnl::memory space(const dnnl::memory::desc& desc) {
    buffers_.emplace_back(memory, static_cast<int64_t>(desc.get_size()));
    return dnnl::memory(desc, engine_, buffers_.back().data());
  }
  dnnl::memory filled(const dnnl::memory::desc& desc, dnnl::memory::data_type type, int64_t count) {
    dnnl::memory matrix = space(desc);
    if (type == dnnl::memory::data_type::f32)
      std::fill_n(static_cast<float*>(matrix.get_data_handle()), count, 0.5f);
    else
      std::fill_n(static_cast<uint16_t*>(matrix.get_data_handle()), count, uint16_t{0x3f00});
    return matrix;
  }
  std::vector<Buffer<char>> buffers_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul product_;
  dnnl::memory x_, w_, y_;
};

void use_one_thread() {
  // oneDNN's threads are OpenMP's.
  if (void* set = dlsym(RTLD_DEFAULT, "omp_set_num_threads"))
    reinterpret_cast<void (*)(int)>(set)(1);
}

#endif

constexpr char kMissing[] = "install oneDNN (libdnnl-dev) and build again";

void bench(const Options& options, const Shape& shape, Compute format, double peak, bool plain) {
  const int rounds = options.quick ? 3 : 15;
  Ours ours(shape, format);
  const auto run = [&] {
    if (plain) ours.prepare();
    ours.multiply();
  };
  const std::string type = format == Compute::kF32 ? "f32" : "bf16";
  Row row{.id = "C3." + type + "." + std::to_string(shape.m) + (plain ? ".plain" : ""),
          .metric = type + " product " + std::to_string(shape.m) + " x " + std::to_string(shape.n) +
                    " x " + std::to_string(shape.k) + ", one core" +
                    (plain ? ", packing counted" : ""),
          .unit = "GFLOP/s",
          .yardstick = "oneDNN"};
  if (!plain) row.must = 1.0, row.aim = 1.3;
  double best = 1e30;
#if defined(COVENANT_HAVE_DNNL)
  Dnnl theirs(shape, format, plain);
  run();
  theirs.multiply();
  double best_theirs = 1e30;
  std::vector<double> ratios;
  for (int i = 0; i < rounds; ++i) {  // in turn, so that both meet the same neighbours
    const double a = cpu_time_s(run), b = cpu_time_s([&] { theirs.multiply(); });
    best = std::min(best, a);
    best_theirs = std::min(best_theirs, b);
    ratios.push_back(b / a);
  }
  row.yardstick_value = 1e-9 * shape.flop() / best_theirs;
  row.ratio = median(ratios);
#else
  for (int i = 0; i < rounds; ++i) best = std::min(best, cpu_time_s(run));
  row.note = kMissing;
#endif
  row.value = 1e-9 * shape.flop() / best;
  if (std::isfinite(peak) && row.note.empty()) {
    char note[96];
    std::snprintf(note, sizeof note, "%s: %.2f of the core's peak, oneDNN %.2f", cov_cpu_path(),
                  row.value / peak, row.yardstick_value / peak);
    row.note = note;
  }
  print(options, row);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
#if defined(COVENANT_HAVE_DNNL)
  use_one_thread();
#endif
  for (const Compute format : {Compute::kF32, Compute::kBf16}) {
    const double peak =
        format == Compute::kF32 ? fp32_peak_gflops(options) : bf16_peak_gflops(options);
    for (const int64_t side : {1024, 1536, 2048}) {
      if (options.quick && side > 1024) continue;
      bench(options, {side, side, side}, format, peak, false);
    }
    bench(options, {1024, 1024, 1024}, format, peak, true);
  }
  return 0;
}
