// The decoder in double precision, written for reading: one sequence, no batching, no tricks.
#pragma once

#include <cmath>
#include <vector>

#include "covenant/tensors.h"

namespace covenant_test {

using Matrix = std::vector<std::vector<double>>;

// Sequential reader of the flat buffer in table order.
class ReferenceModel {
 public:
  explicit ReferenceModel(const cov_model_shape& shape) : shape_(shape) {}

  // log_softmax(z / temperature) for every position of one sequence.
  Matrix log_probs(const std::vector<double>& parameters, const int32_t* tokens, int32_t length,
                   double temperature = 1.0) const {
    const int d = shape_.hidden_size, f = shape_.intermediate_size;
    const int kv = d / shape_.head_count * shape_.kv_head_count;
    const double* embedding = parameters.data();
    const double* p = embedding + static_cast<int64_t>(shape_.vocab_size) * d;
    Matrix x(static_cast<size_t>(length));
    for (size_t t = 0; t < x.size(); ++t)
      x[t].assign(embedding + tokens[t] * d, embedding + (tokens[t] + 1) * d);
    for (int layer = 0; layer < shape_.layer_count; ++layer) {
      const double *wq = p, *wk = wq + d * d, *wv = wk + kv * d, *wo = wv + kv * d;
      const double *wg = wo + d * d, *wu = wg + f * d, *wd = wu + f * d;
      const double *n1 = wd + d * f, *n2 = n1 + d;
      p = n2 + d;
      const Matrix h = norm(x, n1);
      add(x, linear(attend(rotate(linear(h, wq, d)), rotate(linear(h, wk, kv)), linear(h, wv, kv)),
                    wo, d));
      const Matrix g = norm(x, n2);
      Matrix gate = linear(g, wg, f);
      const Matrix up = linear(g, wu, f);
      for (size_t t = 0; t < gate.size(); ++t)
        for (size_t i = 0; i < gate[t].size(); ++i)
          gate[t][i] = gate[t][i] / (1 + std::exp(-gate[t][i])) * up[t][i];
      add(x, linear(gate, wd, d));
    }
    const Matrix last = norm(x, p);
    Matrix z = linear(last, shape_.tie_word_embeddings ? embedding : p + d, shape_.vocab_size);
    for (std::vector<double>& row : z) {
      double sum = 0;
      for (double& v : row) sum += std::exp(v /= temperature);
      for (double& v : row) v -= std::log(sum);
    }
    return z;
  }

 private:
  Matrix linear(const Matrix& x, const double* w, int rows) const {
    Matrix y(x.size(), std::vector<double>(static_cast<size_t>(rows)));
    for (size_t t = 0; t < x.size(); ++t)
      for (size_t o = 0; o < y[t].size(); ++o)
        for (size_t i = 0; i < x[t].size(); ++i) y[t][o] += w[o * x[t].size() + i] * x[t][i];
    return y;
  }
  Matrix norm(const Matrix& x, const double* gain) const {
    Matrix y = x;
    for (std::vector<double>& row : y) {
      double square = 0;
      for (double v : row) square += v * v;
      const double r =
          1 / std::sqrt(square / static_cast<double>(row.size()) + shape_.rms_norm_eps);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= r * gain[i];
    }
    return y;
  }
  static void add(Matrix& x, const Matrix& y) {
    for (size_t t = 0; t < x.size(); ++t)
      for (size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
  }
  Matrix rotate(Matrix x) const {
    const size_t dim = static_cast<size_t>(shape_.hidden_size / shape_.head_count), half = dim / 2;
    for (size_t t = 0; t < x.size(); ++t)
      for (size_t h = 0; h < x[t].size(); h += dim)
        for (size_t i = 0; i < half; ++i) {
          const double angle =
              static_cast<double>(t) *
              std::pow(shape_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
          const double a = x[t][h + i], b = x[t][h + half + i];
          x[t][h + i] = a * std::cos(angle) - b * std::sin(angle);
          x[t][h + half + i] = b * std::cos(angle) + a * std::sin(angle);
        }
    return x;
  }
  Matrix attend(const Matrix& q, const Matrix& k, const Matrix& v) const {
    const size_t dim = static_cast<size_t>(shape_.hidden_size / shape_.head_count);
    const size_t group = static_cast<size_t>(shape_.head_count / shape_.kv_head_count);
    Matrix out(q.size(), std::vector<double>(q[0].size()));
    for (size_t t = 0; t < q.size(); ++t)
      for (size_t h = 0; h < static_cast<size_t>(shape_.head_count); ++h) {
        const size_t at = h * dim, kv = h / group * dim;
        std::vector<double> w(t + 1);
        double sum = 0;
        for (size_t s = 0; s <= t; ++s) {
          double dot = 0;
          for (size_t i = 0; i < dim; ++i) dot += q[t][at + i] * k[s][kv + i];
          sum += w[s] = std::exp(dot / std::sqrt(static_cast<double>(dim)));
        }
        for (size_t s = 0; s <= t; ++s)
          for (size_t i = 0; i < dim; ++i) out[t][at + i] += w[s] / sum * v[s][kv + i];
      }
    return out;
  }

  cov_model_shape shape_;
};

}  // namespace covenant_test
