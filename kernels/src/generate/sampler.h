// The bound sampler: which token a seed draws from a row of logits is a pure function of both, so
// anyone can check a draw. Rules in covenant/model.h, "Sampler".
#pragma once

#include <cstdint>
#include <vector>

namespace covenant {

struct SamplerOptions {
  float temperature;
  int32_t top_k;
  float top_p;
};

// Throws Failure, naming the request, unless the options are in their ranges: temperature 0 or
// [1e-4, 1e4], top_k >= 0, top_p in [0, 1] (0 means 1).
void check_sampling(const SamplerOptions& options, int32_t request);

// The distribution of one position after temperature, top-k and top-p.
class Sampler {
 public:
  explicit Sampler(int64_t vocab);

  // Reads the logits, which must stay until the next prepare.
  void prepare(const float* logits, const SamplerOptions& options);

  // The token drawn by u in (0, 1).
  int32_t draw(double u) const;

  // Distance from u to the nearest edge of the token's interval of the cumulative distribution, 0
  // when u lies outside; at temperature 0 the lead of its logit over the next best, 0 if not first.
  float margin(int32_t token, double u) const;

 private:
  void keep_largest(const SamplerOptions& options);
  bool keep_top_p(float top_p);

  int64_t vocab_;
  const float* logits_ = nullptr;
  bool greedy_ = false;
  double total_ = 0.0;
  std::vector<float> weights_;
  std::vector<int32_t> order_;
  std::vector<double> buckets_;  // sums of weights whose leading bits agree
};

}  // namespace covenant
