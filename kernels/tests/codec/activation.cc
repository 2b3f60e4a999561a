// Activation codecs: round trips within the bound of each, refusals, fp64 references and finite
// differences of the projections, and the step of a basis.
#include "covenant/activation.h"

#include <cstring>
#include <limits>
#include <vector>

#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

using Values = std::vector<float>;

std::vector<uint8_t> encode(int32_t kind, const Values& values, int32_t rows, int32_t width,
                            int32_t threads = 1) {
  uint64_t bytes = 0;
  CHECK_OK(cov_activation_size(kind, rows, width, &bytes));
  std::vector<uint8_t> payload(bytes);
  CHECK_OK(cov_activation_encode(kind, values.data(), rows, width, threads, payload.data(), bytes));
  return payload;
}

void round_trips() {
  Random random(1);
  for (const int32_t kind : {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8, COV_ACTIVATION_INT4}) {
    for (const int32_t width : {1, 63, 64, 65, 320}) {
      for (const int32_t rows : {0, 1, 37}) {
        auto values = random.values(static_cast<size_t>(rows * width), 3);
        if (rows > 1) std::fill_n(values.begin(), width, 0.0f);
        if (rows > 2) values[static_cast<size_t>(2 * width)] = 300.0f;
        const auto payload = encode(kind, values, rows, width);
        CHECK(encode(kind, values, rows, width, 3) == payload);
        Values out(values.size());
        CHECK_OK(cov_activation_decode(kind, payload.data(), payload.size(), rows, width, 2,
                                       out.data()));
        for (int32_t row = 0; row < rows; ++row) {
          for (int32_t at = 0; at < width; at += 64) {
            const int32_t n = std::min(64, width - at);
            const float* const v = &values[static_cast<size_t>(row * width + at)];
            const float* const d = &out[static_cast<size_t>(row * width + at)];
            double largest = 0, square = 0, error = 0;
            for (int32_t i = 0; i < n; ++i)
              largest = std::max(largest, static_cast<double>(std::fabs(v[i])));
            const double bound = kind == COV_ACTIVATION_INT8 ? largest / 252 : largest / 256;
            for (int32_t i = 0; i < n; ++i) {
              square += static_cast<double>(v[i]) * v[i];
              error += std::pow(static_cast<double>(v[i]) - d[i], 2);
              if (kind != COV_ACTIVATION_INT4) CHECK_NEAR(d[i], v[i], bound);
            }
            // Rotated back, the error is at most half a step in each of 64 places; the largest
            // rotated value is at most the norm.
            if (kind == COV_ACTIVATION_INT4)
              CHECK(std::sqrt(error) <= 8 * 0.51 * std::sqrt(square) / 7 + 1e-30);
          }
        }
      }
    }
  }
}

void int4_spreads_outliers() {
  Random random(2);
  Values values(64 * 100);
  for (float& value : values) value = static_cast<float>(random.gaussian());
  for (size_t i = 0; i < values.size(); i += 64) values[i] = 30;
  const auto payload = encode(COV_ACTIVATION_INT4, values, 100, 64);
  Values out(values.size());
  CHECK_OK(cov_activation_decode(COV_ACTIVATION_INT4, payload.data(), payload.size(), 100, 64, 1,
                                 out.data()));
  double error = 0, plain = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % 64 == 0) continue;
    error += std::pow(values[i] - out[i], 2);
    plain += std::pow(values[i] - std::nearbyint(values[i] / (30 / 7.0)) * (30 / 7.0), 2);
  }
  CHECK(error < plain / 3);
}

void refusals() {
  Random random(3);
  const auto values = random.values(2 * 100, 1);
  for (const int32_t kind : {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8, COV_ACTIVATION_INT4}) {
    const auto good = encode(kind, values, 2, 100);
    Values out(200);
    const auto code = [&](const std::vector<uint8_t>& bytes, int32_t rows = 2) {
      return cov_activation_decode(kind, bytes.data(), bytes.size(), rows, 100, 1, out.data()).code;
    };
    CHECK(code(good) == COV_OK);
    for (const size_t at : {0u, 3u, 4u, 5u, 8u, 12u}) {
      auto changed = good;
      changed[at] ^= 1;
      CHECK(code(changed) == COV_MALFORMED);
    }
    auto changed = good;
    changed.pop_back();
    CHECK(code(changed) == COV_MALFORMED);
    CHECK(code(good, 3) == COV_MALFORMED);
    changed = good;
    changed[17] = 0xff;  // a scale, or a bf16 value, that is NaN or negative infinity
    changed[16] = 0x80;
    CHECK(code(changed) == COV_MALFORMED);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      auto broken = values;
      broken[150] = bad;
      auto payload = good;
      CHECK_CODE(cov_activation_encode(kind, broken.data(), 2, 100, 1, payload.data(),
                                       payload.size()),
                 COV_NON_FINITE);
    }
    // Any bytes: refused, or decoded to finite values.
    for (int round = 0; round < unless_sanitized(3000, 300); ++round) {
      changed = good;
      for (uint32_t c = 0; c < 3; ++c)
        changed[16 + random.below(static_cast<uint32_t>(changed.size() - 16))] =
            static_cast<uint8_t>(random.below(256));
      if (code(changed) != COV_OK) continue;
      for (const float value : out) CHECK(std::isfinite(value));
    }
  }
  uint64_t bytes = 0;
  CHECK_CODE(cov_activation_size(3, 1, 1, &bytes), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_activation_size(0, -1, 1, &bytes), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_activation_size(0, 1, 0, &bytes), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_activation_size(0, INT32_MAX, 1 << 20, &bytes), COV_INVALID_ARGUMENT);
  // The extremes of fp32 that bf16 can hold.
  const Values extreme = {3.37e38f, -3.37e38f, 1e-45f, -1e-40f, 0.0f, -0.0f};
  for (const int32_t kind : {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8}) {
    const auto payload = encode(kind, extreme, 1, 6);
    Values out(6);
    CHECK_OK(cov_activation_decode(kind, payload.data(), payload.size(), 1, 6, 1, out.data()));
    CHECK_NEAR(out[0] / extreme[0], 1, 0.01);
  }
}

// Straight-through: over steps wider than the rounding, what comes out moves as what goes in, so that
// dL/dv is dL/d(decoded v). Finite differences of a random loss in random directions.
void gradients_pass_straight_through() {
  Random random(12);
  constexpr int32_t rows = 40, width = 320;
  constexpr size_t size = rows * width;
  const auto decoded = [&](int32_t kind, const Values& values) {
    const auto payload = encode(kind, values, rows, width);
    Values out(size);
    CHECK_OK(cov_activation_decode(kind, payload.data(), payload.size(), rows, width, 1,
                                   out.data()));
    return out;
  };
  for (const int32_t kind : {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8, COV_ACTIVATION_INT4}) {
    for (int round = 0; round < 5; ++round) {
      const auto values = random.values(size, 1), direction = random.values(size, 1);
      Values ahead = values, behind = values;
      for (size_t i = 0; i < size; ++i) {
        ahead[i] += 0.5f * direction[i];
        behind[i] -= 0.5f * direction[i];
      }
      const Values up = decoded(kind, ahead), down = decoded(kind, behind);
      // The loss is the sum of weights·v, whose gradient the weights are.
      double slope = 0, expected = 0;
      for (size_t i = 0; i < size; ++i) {
        const double weight = direction[i] + 0.2 * random.gaussian();
        slope += weight * (static_cast<double>(up[i]) - down[i]);
        expected += weight * direction[i];
      }
      CHECK_NEAR(slope / expected, 1, kind == COV_ACTIVATION_INT4 ? 0.03 : 0.002);
    }
  }
}

struct Setup {
  static constexpr int32_t kWidth = 37, kRank = 19, kRows = 11, kVocab = 5;
  Random random{7};
  Values basis = Values(kWidth * kRank);
  Values table = random.values(kVocab * kWidth, 1);
  Values x = random.values(kRows * kWidth, 1);
  Values weights = random.values(kRows * kWidth, 1);  // loss = sum of weights·y
  std::vector<int32_t> tokens = std::vector<int32_t>(kRows);
  Setup() {
    CHECK_OK(cov_projection_random_basis(5, kWidth, kRank, basis.data()));
    for (int32_t row = 0; row < kRows; ++row) tokens[static_cast<size_t>(row)] = row * 3 % kVocab;
  }
  cov_projection projection() const {
    return {basis.data(), table.data(), kWidth, kRank, kVocab};
  }
};

// The whole codec in fp64: sum of weights·(((x - E)·A)·A^T + E2).
double loss(const Setup& s, const std::vector<double>& x, const std::vector<double>& basis,
            const std::vector<double>& send, const std::vector<double>& receive) {
  double total = 0;
  for (int32_t row = 0; row < Setup::kRows; ++row) {
    const auto token = static_cast<size_t>(s.tokens[static_cast<size_t>(row)]);
    std::vector<double> z(Setup::kRank);
    const auto first = static_cast<size_t>(row * Setup::kWidth);
    for (size_t i = 0; i < Setup::kWidth; ++i)
      for (size_t k = 0; k < Setup::kRank; ++k)
        z[k] += (x[first + i] - send[token * Setup::kWidth + i]) * basis[i * Setup::kRank + k];
    for (size_t i = 0; i < Setup::kWidth; ++i) {
      double y = receive[token * Setup::kWidth + i];
      for (size_t k = 0; k < Setup::kRank; ++k) y += z[k] * basis[i * Setup::kRank + k];
      total += s.weights[first + i] * y;
    }
  }
  return total;
}

void projections_and_their_gradients() {
  Setup s;
  const cov_projection p = s.projection();
  Values z(Setup::kRows * Setup::kRank), y(s.x.size());
  CHECK_OK(cov_projection_encode(&p, s.x.data(), s.tokens.data(), Setup::kRows, 1, z.data()));
  CHECK_OK(cov_projection_decode(&p, z.data(), s.tokens.data(), Setup::kRows, 2, y.data()));
  const auto wide = [](const Values& v) { return std::vector<double>(v.begin(), v.end()); };
  double total = 0;
  for (size_t i = 0; i < y.size(); ++i) total += static_cast<double>(s.weights[i]) * y[i];
  const double expected = loss(s, wide(s.x), wide(s.basis), wide(s.table), wide(s.table));
  CHECK_NEAR(total, expected, 1e-4 * (1 + std::fabs(expected)));

  Values d_z(z.size()), d_x(s.x.size()), d_basis(s.basis.size()), d_send(s.table.size()),
      d_receive(s.table.size());
  CHECK_OK(cov_projection_decode_backward(&p, s.weights.data(), z.data(), s.tokens.data(),
                                          Setup::kRows, 1, d_z.data(), d_basis.data(),
                                          d_receive.data()));
  CHECK_OK(cov_projection_encode_backward(&p, d_z.data(), s.x.data(), s.tokens.data(),
                                          Setup::kRows, 1, d_x.data(), d_basis.data(),
                                          d_send.data()));
  std::vector<double> arguments[4] = {wide(s.x), wide(s.basis), wide(s.table), wide(s.table)};
  const Values* const gradients[4] = {&d_x, &d_basis, &d_send, &d_receive};
  for (int which = 0; which < 4; ++which) {
    for (size_t i = 0; i < arguments[which].size(); i += 7) {
      constexpr double kStep = 1e-4;
      const double here = arguments[which][i];
      const auto at = [&](double value) {
        arguments[which][i] = value;
        return loss(s, arguments[0], arguments[1], arguments[2], arguments[3]);
      };
      const double slope = (at(here + kStep) - at(here - kStep)) / (2 * kStep);
      arguments[which][i] = here;
      CHECK_NEAR((*gradients[which])[i], slope, 2e-4 * (1 + std::fabs(slope)));
    }
  }
  // Any number of threads, and no table.
  Values again(d_basis.size());
  CHECK_OK(cov_projection_decode_backward(&p, s.weights.data(), z.data(), s.tokens.data(),
                                          Setup::kRows, 3, d_z.data(), again.data(), nullptr));
  CHECK_OK(cov_projection_encode_backward(&p, d_z.data(), s.x.data(), s.tokens.data(),
                                          Setup::kRows, 3, d_x.data(), again.data(), nullptr));
  CHECK(again == d_basis);
  cov_projection bare = p;
  bare.table = nullptr;
  CHECK_OK(cov_projection_encode(&bare, s.x.data(), nullptr, Setup::kRows, 1, z.data()));
}

// What lies in the span (plus the table) comes back: the lossless case of subspace networks.
void the_span_is_lossless() {
  Setup s;
  const cov_projection p = s.projection();
  Values inside = s.random.values(Setup::kRows * Setup::kRank, 1), x(s.x.size()), y(s.x.size()),
         z(inside.size());
  CHECK_OK(cov_projection_decode(&p, inside.data(), s.tokens.data(), Setup::kRows, 1, x.data()));
  CHECK_OK(cov_projection_encode(&p, x.data(), s.tokens.data(), Setup::kRows, 1, z.data()));
  CHECK_OK(cov_projection_decode(&p, z.data(), s.tokens.data(), Setup::kRows, 1, y.data()));
  for (size_t i = 0; i < x.size(); ++i) CHECK_NEAR(x[i], y[i], 2e-5);
}

double orthonormality(const Values& basis, size_t width, size_t rank) {
  double worst = 0;
  for (size_t j = 0; j < rank; ++j) {
    for (size_t k = 0; k <= j; ++k) {
      double dot = 0;
      for (size_t i = 0; i < width; ++i)
        dot += static_cast<double>(basis[i * rank + j]) * basis[i * rank + k];
      worst = std::max(worst, std::fabs(dot - (j == k ? 1 : 0)));
    }
  }
  return worst;
}

// A step as it is written down, with modified Gram-Schmidt for the QR decomposition.
void a_step_in_double_precision() {
  constexpr size_t width = 23, rank = 7;
  Random random(13);
  Values basis(width * rank), momentum = random.values(width * rank, 0.1);
  CHECK_OK(cov_projection_random_basis(3, width, rank, basis.data()));
  const Values gradient = random.values(width * rank, 1), a = basis, before = momentum;
  CHECK_OK(cov_projection_step(basis.data(), gradient.data(), momentum.data(), width, rank, 0.1f,
                               0.8f));
  std::vector<double> cross(rank * rank), moved(width * rank);
  for (size_t j = 0; j < rank; ++j)
    for (size_t k = 0; k < rank; ++k)
      for (size_t i = 0; i < width; ++i)
        cross[j * rank + k] += static_cast<double>(a[i * rank + j]) * gradient[i * rank + k];
  for (size_t i = 0; i < width; ++i)
    for (size_t k = 0; k < rank; ++k) {
      double speed = static_cast<double>(0.8f) * before[i * rank + k] + gradient[i * rank + k];
      for (size_t j = 0; j < rank; ++j)
        speed -= a[i * rank + j] * (cross[j * rank + k] + cross[k * rank + j]) / 2;
      CHECK_NEAR(momentum[i * rank + k], speed, 1e-6);
      moved[i * rank + k] = a[i * rank + k] - static_cast<double>(0.1f) * speed;
    }
  for (size_t k = 0; k < rank; ++k) {
    double square = 0;
    for (size_t i = 0; i < width; ++i) square += moved[i * rank + k] * moved[i * rank + k];
    for (size_t i = 0; i < width; ++i) moved[i * rank + k] /= std::sqrt(square);
    for (size_t j = k + 1; j < rank; ++j) {
      double dot = 0;
      for (size_t i = 0; i < width; ++i) dot += moved[i * rank + k] * moved[i * rank + j];
      for (size_t i = 0; i < width; ++i) moved[i * rank + j] -= dot * moved[i * rank + k];
    }
  }
  for (size_t i = 0; i < moved.size(); ++i) CHECK_NEAR(basis[i], moved[i], 1e-6);
}

// Primes, one column, as many columns as rows, no rows at all, NaN.
void projections_at_the_edges() {
  Random random(14);
  for (const auto& [width, rank] : {std::pair{1, 1}, {2, 1}, {13, 13}, {67, 1}, {131, 61}}) {
    Values basis(static_cast<size_t>(width * rank));
    CHECK_OK(cov_projection_random_basis(4, width, rank, basis.data()));
    const cov_projection p = {basis.data(), nullptr, width, rank, 0};
    for (const int32_t rows : {0, 1, 7, 19}) {
      auto x = random.values(static_cast<size_t>(rows * width), 1);
      Values z(static_cast<size_t>(rows * rank)), y(x.size()), d_z(z.size()), d_x(x.size());
      Values d_basis(basis.size());
      for (const bool broken : {false, true}) {
        if (broken && !x.empty()) x[x.size() / 2] = NAN;
        CHECK_OK(cov_projection_encode(&p, x.data(), nullptr, rows, 3, z.data()));
        CHECK_OK(cov_projection_decode(&p, z.data(), nullptr, rows, 3, y.data()));
        CHECK_OK(cov_projection_decode_backward(&p, y.data(), z.data(), nullptr, rows, 3,
                                                d_z.data(), d_basis.data(), nullptr));
        CHECK_OK(cov_projection_encode_backward(&p, d_z.data(), x.data(), nullptr, rows, 3,
                                                d_x.data(), d_basis.data(), nullptr));
        if (broken || rank != width) continue;
        for (size_t i = 0; i < x.size(); ++i) CHECK_NEAR(y[i], x[i], 2e-5);  // a rotation and back
      }
    }
    Values momentum(basis.size()), gradient(basis.size(), INFINITY);
    const Values before = basis;
    CHECK_CODE(cov_projection_step(basis.data(), gradient.data(), momentum.data(), width, rank,
                                   0.1f, 0.9f),
               COV_NON_FINITE);
    CHECK(basis == before);
  }
}

// Steps keep the basis orthonormal and learn the directions that carry the data.
void the_basis_learns() {
  constexpr int32_t width = 24, rank = 4, rows = 200;
  Random random(9);
  Values basis(width * rank), momentum(basis.size()), truth(basis.size());
  CHECK_OK(cov_projection_random_basis(1, width, rank, basis.data()));
  CHECK_OK(cov_projection_random_basis(2, width, rank, truth.data()));
  CHECK(orthonormality(basis, width, rank) < 1e-6);
  const Values inside = random.values(rows * rank, 1);
  Values x(rows * width), y(x.size()), z(inside.size()), d_y(x.size()), d_z(z.size()), d_x(x.size());
  const cov_projection real = {truth.data(), nullptr, width, rank, 0};
  CHECK_OK(cov_projection_decode(&real, inside.data(), nullptr, rows, 1, x.data()));
  double first = 0, last = 0;
  for (int step = 0; step < 300; ++step) {
    const cov_projection p = {basis.data(), nullptr, width, rank, 0};
    CHECK_OK(cov_projection_encode(&p, x.data(), nullptr, rows, 1, z.data()));
    CHECK_OK(cov_projection_decode(&p, z.data(), nullptr, rows, 1, y.data()));
    last = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      d_y[i] = (y[i] - x[i]) / rows;
      last += std::pow(y[i] - x[i], 2);
    }
    if (step == 0) first = last;
    Values gradient(basis.size());
    CHECK_OK(cov_projection_decode_backward(&p, d_y.data(), z.data(), nullptr, rows, 1, d_z.data(),
                                            gradient.data(), nullptr));
    CHECK_OK(cov_projection_encode_backward(&p, d_z.data(), x.data(), nullptr, rows, 1, d_x.data(),
                                            gradient.data(), nullptr));
    CHECK_OK(cov_projection_step(basis.data(), gradient.data(), momentum.data(), width, rank, 0.05f,
                                 0.9f));
  }
  CHECK(orthonormality(basis, width, rank) < 1e-6);
  CHECK(last < first / 1000);
  const auto before = basis;
  const Values broken(basis.size(), NAN);
  CHECK_CODE(cov_projection_step(basis.data(), broken.data(), momentum.data(), width, rank, 0.05f,
                                 0.9f),
             COV_NON_FINITE);
  CHECK(basis == before);
}

void bad_arguments() {
  Setup s;
  Values z(Setup::kRows * Setup::kRank);
  cov_projection p = s.projection();
  s.tokens[3] = Setup::kVocab;
  CHECK_CODE(cov_projection_encode(&p, s.x.data(), s.tokens.data(), Setup::kRows, 1, z.data()),
             COV_OUT_OF_RANGE);
  CHECK_CODE(cov_projection_encode(&p, s.x.data(), nullptr, Setup::kRows, 1, z.data()),
             COV_INVALID_ARGUMENT);
  p.rank = Setup::kWidth + 1;
  CHECK_CODE(cov_projection_encode(&p, s.x.data(), s.tokens.data(), 0, 1, z.data()),
             COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  round_trips();
  int4_spreads_outliers();
  refusals();
  gradients_pass_straight_through();
  projections_and_their_gradients();
  a_step_in_double_precision();
  projections_at_the_edges();
  the_span_is_lossless();
  the_basis_learns();
  bad_arguments();
  TEST_MAIN_END("codec/activation");
}
