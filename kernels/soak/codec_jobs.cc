// Jobs with the codecs of weights and activations.
#include <cmath>
#include <cstring>

#include "covenant/activation.h"
#include "covenant/delta.h"
#include "jobs.h"

namespace covenant_soak {

std::vector<float> Worker::numbers(size_t count, float scale) {
  std::vector<float> values(count);
  for (float& value : values)
    value = scale * (static_cast<float>(random_() >> 40) * 0x1p-23f - 1.0f);
  return values;
}

// From one version of the weights to the next, whole, and with a byte changed on the way.
void Worker::deltas() {
  const size_t count = 1 + random_() % base_.size();
  std::vector<uint16_t> old(count), next(count), out(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &base_[i], sizeof bits);
    old[i] = next[i] = static_cast<uint16_t>(bits >> 16);
    if (below(5) == 0) next[i] = static_cast<uint16_t>(next[i] + below(3) - 1);
  }
  cov_bytes delta = {};
  if (!expect(cov_delta_encode(old.data(), next.data(), count, 1 + below(2), &delta), COV_OK,
              "delta"))
    return;
  expect(cov_delta_apply(old.data(), count, delta.data, delta.length, 1 + below(2), out.data()),
         COV_OK, "apply of a delta");
  if (fault_.empty() && out != next) wrong("a delta leads to other weights");
  delta.data[random_() % delta.length] ^= static_cast<uint8_t>(1 + below(255));
  if (cov_delta_apply(old.data(), count, delta.data, delta.length, 1, out.data()).code == COV_OK)
    wrong("a damaged delta is accepted");
  refused_.fetch_add(1, std::memory_order_relaxed);
  cov_bytes_free(&delta);
}

// There and back by each codec: what was decoded is encoded to what it was decoded from, but for
// INT4, whose rotation rounds.
void Worker::activations() {
  const int32_t kind = below(3), rows = below(40), width = 1 + below(300);
  const auto size = static_cast<size_t>(rows * width);
  std::vector<float> values = numbers(size, 4.0f), out(size);
  uint64_t bytes = 0;
  if (!expect(cov_activation_size(kind, rows, width, &bytes), COV_OK, "size of activations"))
    return;
  std::vector<uint8_t> payload(bytes);
  expect(cov_activation_encode(kind, values.data(), rows, width, 1 + below(2), payload.data(),
                               bytes),
         COV_OK, "encode of activations");
  expect(cov_activation_decode(kind, payload.data(), bytes, rows, width, 1 + below(2), out.data()),
         COV_OK, "decode of activations");
  const float bound = kind == COV_ACTIVATION_INT4 ? 6.0f : 0.05f;
  for (size_t i = 0; i < size; ++i)
    if (!(std::fabs(out[i] - values[i]) <= bound)) wrong("an activation comes back as another");
  if (size == 0) return;
  values[random_() % size] = below(2) == 0 ? NAN : INFINITY;
  expect(cov_activation_encode(kind, values.data(), rows, width, 1, payload.data(), bytes),
         COV_NON_FINITE, "encode of activations that are not finite");
  payload[random_() % 16] ^= 0x40;
  expect(cov_activation_decode(kind, payload.data(), bytes, rows, width, 1, out.data()),
         COV_MALFORMED, "decode of damaged activations");
  refused_.fetch_add(2, std::memory_order_relaxed);
}

// Forward and backward through a learned projection, and a step of its basis.
void Worker::projections() {
  const int32_t width = 8 + below(60), rank = 1 + below(width), rows = 1 + below(30), vocab = 5;
  const auto area = static_cast<size_t>(width * rank);
  std::vector<float> basis(area), gradient(area), momentum(area);
  if (!expect(cov_projection_random_basis(random_(), width, rank, basis.data()), COV_OK, "basis"))
    return;
  const std::vector<float> table = numbers(static_cast<size_t>(vocab * width), 1.0f);
  const std::vector<float> x = numbers(static_cast<size_t>(rows * width), 1.0f);
  std::vector<float> y(x.size()), z(static_cast<size_t>(rows * rank)), d_x(x.size()), d_z(z.size());
  std::vector<float> d_table(table.size());
  std::vector<int32_t> tokens(static_cast<size_t>(rows));
  for (int32_t& token : tokens) token = below(vocab);
  const cov_projection p = {basis.data(), table.data(), width, rank, vocab};
  const int32_t threads = 1 + below(2);
  expect(cov_projection_encode(&p, x.data(), tokens.data(), rows, threads, z.data()), COV_OK,
         "projection");
  expect(cov_projection_decode(&p, z.data(), tokens.data(), rows, threads, y.data()), COV_OK,
         "projection back");
  expect(cov_projection_decode_backward(&p, y.data(), z.data(), tokens.data(), rows, threads,
                                        d_z.data(), gradient.data(), d_table.data()),
         COV_OK, "receiver's gradients");
  expect(cov_projection_encode_backward(&p, d_z.data(), x.data(), tokens.data(), rows, threads,
                                        d_x.data(), gradient.data(), d_table.data()),
         COV_OK, "sender's gradients");
  expect(cov_projection_step(basis.data(), gradient.data(), momentum.data(), width, rank, 0.01f,
                             0.9f),
         COV_OK, "step of a basis");
  double norm = 0;
  for (int32_t i = 0; i < width; ++i) norm += std::pow(basis[static_cast<size_t>(i * rank)], 2);
  if (!(std::fabs(norm - 1) < 1e-5)) wrong("a basis is no longer orthonormal");
}

}  // namespace covenant_soak
