// Replicas: one has the bits of a device, several are near them, equal among each other and on a rerun.
#include "support.h"

namespace {

using namespace covenant_test;

constexpr int kSteps = 3;

struct Curve {
  std::vector<double> losses;
  std::vector<float> parameters;
};

Curve train(const cov_model_shape& shape, int32_t devices, const cov_parallel_options& options,
            int32_t sequences) {
  const ParallelModel model(devices, shape, lively_parameters(shape, 3), options);
  Curve curve;
  for (uint32_t step = 0; step < kSteps; ++step) {
    const TestBatch batch(shape, sequences, 5, 20 + step);
    double loss = 0;
    float norm = 0;
    CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, &loss, &norm));
    CHECK(norm > 0);
    curve.losses.push_back(loss);
  }
  curve.parameters = model.read(COV_PARAMETERS);
  const int32_t replicas = devices / std::max(options.stages, 1);
  for (int32_t replica = 0; replica < replicas; ++replica)
    for (cov_buffer which : {COV_PARAMETERS, COV_FIRST_MOMENT, COV_SECOND_MOMENT}) {
      const std::vector<float> first = model.read_replica(0, which);
      const std::vector<float> other = model.read_replica(replica, which);
      CHECK_SAME(other.data(), first.data(), first.size() * sizeof(float));
    }
  return curve;
}

Curve train_on_cpu(const cov_model_shape& shape, int32_t sequences) {
  const TestModel cpu(shape, lively_parameters(shape, 3));
  Curve curve;
  for (uint32_t step = 0; step < kSteps; ++step) {
    const TestBatch batch(shape, sequences, 5, 20 + step);
    double loss = 0;
    CHECK_OK(cov_model_train_step(cpu, &batch.batch, &kAdamw, &loss, nullptr));
    curve.losses.push_back(loss);
  }
  const float* const data = cpu.buffer(COV_PARAMETERS);
  curve.parameters.assign(data, data + cov_parameter_count(&shape));
  return curve;
}

void curves(const cov_model_shape& shape) {
  // Sequences that the devices share unevenly; fewer than there are devices.
  for (int32_t sequences : {5, 2}) {
    const Curve expected = train_on_cpu(shape, sequences);
    const Curve one = train(shape, 1, {1, COV_COMPUTE_F32, 0, 0}, sequences);
    CHECK(one.losses == expected.losses);
    CHECK_SAME(one.parameters.data(), expected.parameters.data(),
               one.parameters.size() * sizeof(float));
    for (int32_t devices = 2; devices <= std::min(3, cov_device_count()); ++devices) {
      const Curve several = train(shape, devices, {0, COV_COMPUTE_F32, 0, 0}, sequences);
      const Curve again = train(shape, devices, {1, COV_COMPUTE_F32, 0, 0}, sequences);
      for (int step = 0; step < kSteps; ++step)
        CHECK_NEAR(several.losses[static_cast<size_t>(step)],
                   expected.losses[static_cast<size_t>(step)], 1e-4);
      CHECK(several.losses == again.losses);
      CHECK_SAME(several.parameters.data(), again.parameters.data(),
                 again.parameters.size() * sizeof(float));
    }
  }
}

// Two replicas of two stages: the bits of two replicas on one device each.
void both(const cov_model_shape& shape) {
  if (cov_device_count() < 4) return;
  const Curve flat = train(shape, 2, {1, COV_COMPUTE_F32, 0, 0}, 5);
  const Curve deep = train(shape, 4, {2, COV_COMPUTE_F32, 0, 0}, 5);
  CHECK(flat.losses == deep.losses);
  CHECK_SAME(flat.parameters.data(), deep.parameters.data(),
             flat.parameters.size() * sizeof(float));
  const Curve rounded = train(shape, 4, {2, COV_COMPUTE_BF16, 0, 0}, 5);
  CHECK_NEAR(rounded.losses[kSteps - 1], flat.losses[kSteps - 1], 5e-2);
}

// Gradients are added up over calls, read as a sum, and read again.
void gradients(const cov_model_shape& shape) {
  const std::vector<float> parameters = lively_parameters(shape, 11);
  const DevicePointer device = open_device();
  const DeviceModel one(device.get(), shape, parameters);
  const ParallelModel two(2, shape, parameters, {1, COV_COMPUTE_F32, 0, 0});
  const TestBatch batch(shape, 5, 9, 5);
  const size_t count = batch.tokens.size();
  const std::vector<float> coefficients = Numbers(9).floats(static_cast<int64_t>(count));
  const cov_forward_options options = {1, 4, 0.9f};
  ForwardResults expected(count, options.top_count), found(count, options.top_count);
  const cov_forward_output expected_output = expected.output(), output = found.output();
  for (int round = 0; round < 2; ++round) {
    CHECK_OK(cov_device_model_forward(one, &batch.batch, &options, &expected_output));
    CHECK_OK(cov_parallel_model_forward(two, &batch.batch, &options, &output));
    check_same(found, expected);
    CHECK_OK(cov_device_model_backward(one, coefficients.data(), count));
    CHECK_OK(cov_parallel_model_backward(two, coefficients.data(), count));
    const std::vector<float> wanted = one.read(COV_GRADIENTS);
    CHECK_NEAR(difference(two.read(COV_GRADIENTS), wanted.data()), 0, 1e-5);
    CHECK_NEAR(difference(two.read(COV_GRADIENTS), wanted.data()), 0, 1e-5);
  }
  float expected_norm = 0, norm = 0;
  CHECK_OK(cov_device_model_optimizer_step(one, &kAdamw, &expected_norm));
  CHECK_OK(cov_parallel_model_optimizer_step(two, &kAdamw, &norm));
  CHECK_NEAR(norm / expected_norm, 1.0, 1e-5);
  // Written gradients count once.
  const std::vector<float> given = Numbers(3).floats(static_cast<int64_t>(parameters.size()));
  CHECK_OK(cov_parallel_model_write(two, COV_GRADIENTS, 0, given.size(), given.data()));
  const std::vector<float> back = two.read(COV_GRADIENTS);
  CHECK_SAME(back.data(), given.data(), given.size() * sizeof(float));
}

}  // namespace

int main() {
  if (!have_devices(2)) return kSkipped;
  const std::vector<cov_model_shape> shapes = parallel_shapes();
  curves(shapes[1]);
  both(shapes[0]);
  gradients(shapes[1]);
  TEST_MAIN_END("cuda data parallel");
}
