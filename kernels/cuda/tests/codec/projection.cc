// Projections on the device: values and gradients have the CPU's bits.
#include "covenant/activation.h"
#include "device_memory.h"
#include "sparse/fixtures.h"

namespace {

using namespace covenant_test;

using Values = std::vector<float>;

cov_device* device = nullptr;

void check_equal(const OnDevice& found, const Values& expected) {
  const Values values = found.read();
  CHECK(values.size() == expected.size());
  CHECK_SAME(values.data(), expected.data(), values.size() * sizeof(float));
}

struct Case {
  int32_t width, rank, rows, vocab;  // vocab 0: no table
};

void check_case(const Case& c, uint32_t seed) {
  Random random(seed);
  const auto size = [](int32_t a, int32_t b) {
    return static_cast<size_t>(a) * static_cast<size_t>(b);
  };
  Values basis(size(c.width, c.rank));
  CHECK_OK(cov_projection_random_basis(seed, c.width, c.rank, basis.data()));
  const Values table = random.values(size(c.vocab, c.width), 1);
  const Values x = random.values(size(c.rows, c.width), 1);
  const Values d_y = random.values(x.size(), 1);
  std::vector<int32_t> tokens;
  for (int32_t row = 0; row < c.rows && c.vocab > 0; ++row)
    tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(c.vocab))));

  const cov_projection cpu = {basis.data(), c.vocab > 0 ? table.data() : nullptr, c.width, c.rank,
                              c.vocab};
  Values z(size(c.rows, c.rank)), y(x.size()), d_z(z.size()), d_x(x.size());
  Values d_basis = random.values(basis.size(), 1), d_receive = random.values(table.size(), 1);
  Values d_send = d_receive;

  const OnDevice basis_there(device, basis), table_there(device, table), x_there(device, x);
  const OnDevice d_y_there(device, d_y), z_there(device, z), y_there(device, y);
  const OnDevice d_z_there(device, d_z), d_x_there(device, d_x), d_basis_there(device, d_basis);
  const OnDevice d_receive_there(device, d_receive), d_send_there(device, d_send);
  const cov_projection there = {basis_there.data(), c.vocab > 0 ? table_there.data() : nullptr,
                                c.width, c.rank, c.vocab};

  CHECK_OK(cov_projection_encode(&cpu, x.data(), tokens.data(), c.rows, 2, z.data()));
  CHECK_OK(cov_device_projection_encode(device, &there, x_there.data(), tokens.data(), c.rows,
                                        z_there.data()));
  check_equal(z_there, z);
  CHECK_OK(cov_projection_decode(&cpu, z.data(), tokens.data(), c.rows, 1, y.data()));
  CHECK_OK(cov_device_projection_decode(device, &there, z_there.data(), tokens.data(), c.rows,
                                        y_there.data()));
  check_equal(y_there, y);
  CHECK_OK(cov_projection_decode_backward(&cpu, d_y.data(), z.data(), tokens.data(), c.rows, 1,
                                          d_z.data(), d_basis.data(), d_receive.data()));
  CHECK_OK(cov_device_projection_decode_backward(device, &there, d_y_there.data(), z_there.data(),
                                                 tokens.data(), c.rows, d_z_there.data(),
                                                 d_basis_there.data(), d_receive_there.data()));
  check_equal(d_z_there, d_z);
  check_equal(d_basis_there, d_basis);
  check_equal(d_receive_there, d_receive);
  CHECK_OK(cov_projection_encode_backward(&cpu, d_z.data(), x.data(), tokens.data(), c.rows, 1,
                                          d_x.data(), d_basis.data(), d_send.data()));
  CHECK_OK(cov_device_projection_encode_backward(device, &there, d_z_there.data(), x_there.data(),
                                                 tokens.data(), c.rows, d_x_there.data(),
                                                 d_basis_there.data(), d_send_there.data()));
  check_equal(d_x_there, d_x);
  check_equal(d_basis_there, d_basis);
  check_equal(d_send_there, d_send);

  // Without the sums that nobody asked for.
  CHECK_OK(cov_device_projection_decode_backward(device, &there, d_y_there.data(), z_there.data(),
                                                 tokens.data(), c.rows, d_z_there.data(), nullptr,
                                                 nullptr));
  check_equal(d_z_there, d_z);
  check_equal(d_basis_there, d_basis);
}

void refusals() {
  const OnDevice memory(device, Values(64));
  cov_projection p = {memory.data(), memory.data(), 8, 4, 2};
  const int32_t tokens[] = {0, 2};
  CHECK_CODE(cov_device_projection_encode(device, &p, memory.data(), tokens, 2, memory.data()),
             COV_OUT_OF_RANGE);
  CHECK_CODE(cov_device_projection_encode(device, &p, memory.data(), nullptr, 2, memory.data()),
             COV_INVALID_ARGUMENT);
  p.rank = 9;
  CHECK_CODE(cov_device_projection_decode(device, &p, memory.data(), tokens, 1, memory.data()),
             COV_INVALID_ARGUMENT);
  p.rank = 4;
  p.basis = nullptr;
  CHECK_CODE(cov_device_projection_decode(device, &p, memory.data(), tokens, 1, memory.data()),
             COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer opened = open_device();
  device = opened.get();
  uint32_t seed = 1;
  // 519 rows are more than the CPU takes at once.
  for (const Case& c : {Case{1, 1, 1, 1}, Case{37, 19, 11, 5}, Case{130, 67, 3, 0},
                        Case{64, 64, 70, 3}, Case{24, 5, 0, 4}, Case{24, 5, 0, 0},
                        Case{9, 2, 519, 2}})
    check_case(c, seed++);
  refusals();
  TEST_MAIN_END("cuda codec/projection");
}
