// Backward passes against central differences of a double-precision reference: each operation alone
// and the whole model, every tensor.
#include <functional>
#include <vector>

#include "core/thread_pool.h"
#include "engine/attention.h"
#include "engine/isa/table.h"
#include "reference.h"
#include "support.h"

using namespace covenant_test;

namespace {

using Doubles = std::vector<double>;

Doubles widen(const std::vector<float>& x) { return Doubles(x.begin(), x.end()); }

// d loss / d x[i] by central differences.
double difference(const std::function<double(const Doubles&)>& loss, Doubles x, size_t i) {
  const double step = 1e-5, at = x[i];
  x[i] = at + step;
  const double up = loss(x);
  x[i] = at - step;
  return (up - loss(x)) / (2 * step);
}

void check_gradient(const std::function<double(const Doubles&)>& loss, const std::vector<float>& x,
                    const float* gradient, double tolerance) {
  for (size_t i = 0; i < x.size(); ++i)
    CHECK_NEAR(gradient[i], difference(loss, widen(x), i), tolerance);
}

void test_rmsnorm() {
  Numbers numbers(21);
  constexpr int64_t kN = 19;
  const std::vector<float> x = numbers.floats(kN), gain = numbers.floats(kN),
                           dy = numbers.floats(kN);
  const std::vector<float> zero(kN, 0.0f);
  std::vector<float> y(kN), dx(kN), dgain(kN, 0.0f);
  const float r = covenant::kernels().rmsnorm(x.data(), gain.data(), 1e-3f, kN, y.data());
  covenant::kernels().rmsnorm_backward(x.data(), gain.data(), dy.data(), zero.data(), r, kN,
                                       dx.data(), dgain.data());
  const auto loss = [&](const Doubles& vx, const Doubles& vg) {
    double square = 0, sum = 0;
    for (double v : vx) square += v * v;
    for (size_t i = 0; i < kN; ++i) sum += dy[i] * vx[i] / std::sqrt(square / kN + 1e-3) * vg[i];
    return sum;
  };
  check_gradient([&](const Doubles& v) { return loss(v, widen(gain)); }, x, dx.data(), 1e-5);
  check_gradient([&](const Doubles& v) { return loss(widen(x), v); }, gain, dgain.data(), 1e-5);
}

void test_swiglu() {
  Numbers numbers(22);
  constexpr int64_t kN = 37;
  const std::vector<float> gate = numbers.floats(kN, 4), up = numbers.floats(kN),
                           dh = numbers.floats(kN);
  std::vector<float> h(kN), dgate(kN), dup(kN);
  covenant::kernels().swiglu_backward(gate.data(), up.data(), dh.data(), kN, h.data(), dgate.data(),
                                      dup.data());
  const auto loss = [&](const Doubles& g, const Doubles& u) {
    double sum = 0;
    for (size_t i = 0; i < kN; ++i) sum += dh[i] * g[i] / (1 + std::exp(-g[i])) * u[i];
    return sum;
  };
  check_gradient([&](const Doubles& v) { return loss(v, widen(up)); }, gate, dgate.data(), 1e-5);
  check_gradient([&](const Doubles& v) { return loss(widen(gate), v); }, up, dup.data(), 1e-5);
}

void test_rope() {
  Numbers numbers(23);
  constexpr int64_t kDim = 10, kHeads = 3;
  const std::vector<float> x = numbers.floats(kDim * kHeads), dy = numbers.floats(kDim * kHeads);
  std::vector<float> cosine(kDim / 2), sine(kDim / 2), dx = dy;
  for (size_t i = 0; i < cosine.size(); ++i) {
    cosine[i] = std::cos(0.3f * static_cast<float>(i + 1));
    sine[i] = std::sin(0.3f * static_cast<float>(i + 1));
  }
  covenant::kernels().rope_backward(dx.data(), cosine.data(), sine.data(), kHeads, kDim);
  const auto loss = [&](const Doubles& v) {
    double sum = 0;
    for (size_t h = 0; h < kHeads; ++h)
      for (size_t i = 0; i < kDim / 2; ++i) {
        const size_t a = h * kDim + i, b = a + kDim / 2;
        sum += dy[a] * (v[a] * cosine[i] - v[b] * sine[i]) +
               dy[b] * (v[b] * cosine[i] + v[a] * sine[i]);
      }
    return sum;
  };
  check_gradient(loss, x, dx.data(), 1e-5);
}

void test_logits() {
  Numbers numbers(24);
  constexpr int64_t kN = 33;
  constexpr float kInverse = 1.4f, kCoefficient = -0.7f;
  const std::vector<float> z = numbers.floats(kN, 3);
  const covenant::RowStats stats = covenant::kernels().logit_stats(z.data(), kInverse, kN);
  const float lse = stats.max + std::log(stats.sum);
  std::vector<float> dz(z.size());
  covenant::kernels().logit_gradient(z.data(), kInverse, lse, kCoefficient * kInverse, 5, kN,
                                     dz.data());
  const auto loss = [&](const Doubles& v) {
    double sum = 0;
    for (double value : v) sum += std::exp(value * kInverse);
    return kCoefficient * (v[5] * kInverse - std::log(sum));
  };
  check_gradient(loss, z, dz.data(), 1e-5);
  // Entropy from the same pass.
  double entropy = 0;
  for (float value : z) {
    const double lp = static_cast<double>(value) * kInverse - lse;
    entropy -= std::exp(lp) * lp;
  }
  CHECK_NEAR(std::log(stats.sum) - stats.dot / stats.sum, entropy, 1e-5);
}

// A rotary table of `length` positions.
struct Rotary {
  std::vector<float> cosine, sine;
  Rotary(int64_t length, int64_t dim) {
    for (int64_t i = 0; i < length; ++i)
      for (int64_t j = 0; j < dim / 2; ++j) {
        const double angle = 0.3 * static_cast<double>(i) / static_cast<double>(1 + j);
        cosine.push_back(static_cast<float>(std::cos(angle)));
        sine.push_back(static_cast<float>(std::sin(angle)));
      }
  }
};

// Two sequences, four heads on two kv heads; long enough for several query blocks.
void test_attention(int64_t length, int64_t checked) {
  Numbers numbers(25);
  const covenant::AttentionShape shape = {4, 2, 6};
  const covenant::Segment segments[2] = {{0, length}, {length, 3}};
  const int64_t rows = length + 3, width = shape.width(), out_width = shape.query_width();
  const std::vector<float> qkv = numbers.floats(rows * width, 1.5f),
                           dout = numbers.floats(rows * out_width);
  std::vector<float> out(static_cast<size_t>(rows * out_width)), lse(static_cast<size_t>(rows * 4));
  std::vector<float> dqkv(qkv.size(), NAN);
  constexpr covenant::Compute kFormat = covenant::Compute::kF32;
  const int64_t size = covenant::attention_scratch_size(shape, kFormat, length);
  const int64_t back_size = covenant::attention_backward_scratch_size(shape, kFormat, length);
  std::vector<float> scratch(static_cast<size_t>(std::max(size, back_size)));
  for (int64_t task = 0; task < 4; ++task)
    covenant::attention(shape, kFormat, {qkv.data(), out.data(), lse.data(), nullptr},
                        segments[task / 2],
                        task % 2, scratch.data());
  const Rotary rotary(length, 6);
  for (int64_t task = 0; task < 4; ++task)
    covenant::attention_backward(shape, kFormat,
                                 {qkv.data(), out.data(), lse.data(), dout.data(),
                                  rotary.cosine.data(), rotary.sine.data(), {dqkv.data(), nullptr}},
                                 segments[task / 2], task % 2, scratch.data());
  // Queries and keys rotated by their positions, or back.
  const auto rotated = [&](Doubles x, double sign) {
    for (const covenant::Segment& s : segments)
      for (int64_t t = 0; t < s.count; ++t)
        for (int64_t h = 0; h < 6; ++h)
          for (int64_t j = 0; j < 3; ++j) {
            double* const a = &x[static_cast<size_t>((s.row + t) * width + h * 6 + j)];
            const size_t at = static_cast<size_t>(3 * t + j);
            const double c = rotary.cosine[at], d = sign * rotary.sine[at], low = a[0];
            a[0] = low * c - a[3] * d;
            a[3] = a[3] * c + low * d;
          }
    return x;
  };
  const auto loss = [&](const Doubles& unrotated) {
    const Doubles x = rotated(unrotated, 1);
    double sum = 0;
    for (const covenant::Segment& s : segments)
      for (int64_t t = 0; t < s.count; ++t)
        for (int64_t h = 0; h < 4; ++h) {
          const double* q = &x[static_cast<size_t>((s.row + t) * width + h * 6)];
          double total = 0, value = 0;
          for (int64_t j = 0; j <= t; ++j) {
            const double* k = &x[static_cast<size_t>((s.row + j) * width + (4 + h / 2) * 6)];
            double dot = 0, along = 0;
            for (int64_t i = 0; i < 6; ++i) {
              dot += q[i] * k[i];
              along += k[12 + i] * dout[static_cast<size_t>((s.row + t) * out_width + h * 6 + i)];
            }
            const double w = std::exp(dot / std::sqrt(6.0));
            total += w;
            value += w * along;
          }
          sum += value / total;
        }
    return sum;
  };
  double forward = 0;
  for (size_t i = 0; i < out.size(); ++i) forward += static_cast<double>(out[i]) * dout[i];
  const Doubles x = rotated(widen(qkv), -1);
  CHECK_NEAR(forward, loss(x), 1e-4);
  for (int64_t i = 0; i < checked; ++i) {
    const size_t at = checked == rows * width ? static_cast<size_t>(i)
                                              : numbers.word() % static_cast<uint32_t>(qkv.size());
    CHECK_NEAR(dqkv[at], difference(loss, x, at), 2e-5);
  }
}

// Rounded operands against fp32 ones: the relative error of the output, of dQ, of dK and of dV as
// wholes, and that nothing depends on what the scratch held. 8 bits of a rounded number are 0.2 % at
// the mean.
void test_attention_bf16(int64_t length, int64_t dim) {
  Numbers numbers(26);
  const covenant::AttentionShape shape = {4, 2, dim};
  const covenant::Segment segments[2] = {{0, length}, {length, 3}};
  const int64_t rows = length + 3, width = shape.width(), out_width = shape.query_width();
  const std::vector<float> qkv = numbers.floats(rows * width, 1.5f),
                           dout = numbers.floats(rows * out_width);
  std::vector<float> out(static_cast<size_t>(rows * out_width)), lse(static_cast<size_t>(rows * 4));
  const auto forward = [&](covenant::Compute format, float dirt) {
    const int64_t size = covenant::attention_scratch_size(shape, format, length);
    std::vector<float> scratch(static_cast<size_t>(size), dirt);
    std::fill(out.begin(), out.end(), NAN);
    for (int64_t task = 0; task < 4; ++task)
      covenant::attention(shape, format, {qkv.data(), out.data(), lse.data(), nullptr},
                        segments[task / 2],
                          task % 2, scratch.data());
    return out;
  };
  const Rotary rotary(length, dim);
  const auto backward = [&](covenant::Compute format, float dirt) {
    const int64_t size = covenant::attention_backward_scratch_size(shape, format, length);
    std::vector<float> scratch(static_cast<size_t>(size), dirt), dqkv(qkv.size(), NAN);
    const int64_t row = covenant::bf16_row(width);
    std::vector<covenant::Bf16> rounded(static_cast<size_t>(rows * row), 0x7fc0);
    const bool f32 = format == covenant::Compute::kF32;
    const covenant::Operand to = {f32 ? dqkv.data() : nullptr, f32 ? nullptr : rounded.data()};
    for (int64_t task = 0; task < 4; ++task)
      covenant::attention_backward(shape, format,
                                   {qkv.data(), out.data(), lse.data(), dout.data(),
                                    rotary.cosine.data(), rotary.sine.data(), to},
                                   segments[task / 2], task % 2, scratch.data());
    for (int64_t i = 0; !f32 && i < rows; ++i)
      for (int64_t c = 0; c < row; ++c) {
        const covenant::Bf16 x = rounded[static_cast<size_t>(i * row + c)];
        const uint32_t bits = static_cast<uint32_t>(x) << 16;
        if (c < width)
          std::memcpy(&dqkv[static_cast<size_t>(i * width + c)], &bits, 4);
        else
          CHECK(x == 0x7fc0);  // what is behind the columns is not touched
      }
    return dqkv;
  };
  const auto check = [&](const std::vector<float>& rounded, const std::vector<float>& exact,
                         int64_t row, int64_t first, int64_t end) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = first; c < end; ++c) {
        const size_t at = static_cast<size_t>(i * row + c);
        const double difference = static_cast<double>(rounded[at]) - exact[at];
        error += difference * difference;
        norm += static_cast<double>(exact[at]) * exact[at];
      }
    CHECK(norm > 0 && std::sqrt(error / norm) < 0.01);
  };
  using covenant::Compute;
  const std::vector<float> exact_out = forward(Compute::kF32, 1.0f);
  const std::vector<float> exact = backward(Compute::kF32, 1.0f);
  const std::vector<float> rounded_out = forward(Compute::kBf16, 1.0f);
  const std::vector<float> rounded = backward(Compute::kBf16, 1.0f);
  check(rounded_out, exact_out, out_width, 0, out_width);
  for (const auto& [first, end] : {std::pair{int64_t{0}, 4 * dim}, {4 * dim, 6 * dim},
                                   {6 * dim, 8 * dim}})  // q, k and v
    check(rounded, exact, width, first, end);
  CHECK_SAME(rounded_out.data(), forward(Compute::kBf16, NAN).data(), out.size() * sizeof(float));
  CHECK_SAME(rounded.data(), backward(Compute::kBf16, NAN).data(), rounded.size() * sizeof(float));
}

void test_model(cov_model_shape shape, int32_t every) {
  const std::vector<float> parameters = lively_parameters(shape, 31);
  TestModel model(shape, parameters);
  Numbers numbers(32);
  constexpr int32_t kSequences = 2, kLength = 7;
  constexpr float kTemperature = 0.8f;
  const std::vector<int32_t> tokens = numbers.tokens(kSequences * kLength, shape.vocab_size);
  std::vector<int32_t> targets = numbers.tokens(kSequences * kLength, shape.vocab_size);
  targets[2] = targets[9] = -1;
  const std::vector<float> coefficients = numbers.floats(kSequences * kLength);
  const cov_batch batch = {tokens.data(), targets.data(), kSequences, kLength};
  const cov_forward_options options = {1, 0, kTemperature};
  std::vector<float> log_probs(tokens.size());
  const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
  CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  CHECK_OK(cov_model_backward(model, coefficients.data(), coefficients.size()));
  const ReferenceModel reference(shape);
  const auto loss = [&](const Doubles& p) {
    double sum = 0;
    for (int32_t s = 0; s < kSequences; ++s) {
      const Matrix lp = reference.log_probs(p, tokens.data() + s * kLength, kLength, kTemperature);
      for (int32_t t = 0; t < kLength; ++t) {
        const size_t at = static_cast<size_t>(s * kLength + t);
        if (targets[at] >= 0)
          sum += coefficients[at] * lp[static_cast<size_t>(t)][static_cast<size_t>(targets[at])];
      }
    }
    return sum;
  };
  const Doubles p = widen(parameters);
  double forward = 0, scale = 0;
  for (size_t i = 0; i < log_probs.size(); ++i)
    forward += static_cast<double>(log_probs[i]) * coefficients[i];
  CHECK_NEAR(forward, loss(p), 1e-4);
  const float* gradient = model.buffer(COV_GRADIENTS);
  for (size_t i = 0; i < p.size(); ++i)
    scale = std::max(scale, std::fabs(static_cast<double>(gradient[i])));
  for (size_t i = 0; i < p.size(); i += static_cast<size_t>(every))
    CHECK_NEAR(gradient[i], difference(loss, p, i), 3e-5 * scale);
}

}  // namespace

int main() {
  test_rmsnorm();
  test_swiglu();
  test_rope();
  test_logits();
  test_attention(11, (11 + 3) * 48);
  test_attention(170, 60);  // more rows than one backward block
  // Lengths and widths of one panel less, the same and more; one and several blocks of rows.
  for (int64_t length : {3, 5, 31, 32, 33, 96, 97, 203})
    for (int64_t dim : {6, 32, 40}) test_attention_bf16(length, dim);
  test_model(tiny_shape(), 3);
  cov_model_shape tied = tiny_shape();
  tied.tie_word_embeddings = 1;
  tied.kv_head_count = 1;
  test_model(tied, 5);
  TEST_MAIN_END("engine/gradient");
}
