// Adapters on several devices. One replica, whatever the stages: the CPU's bits in fp32. Several replicas:
// gradients, norms and losses within 1e-5 of it, equal bits on all replicas and on every run.
#include "../engine/adapters.h"

#include "support.h"

namespace {

using namespace covenant_test;

using Adapters = DeviceAdapters<cov_parallel_model>;

struct Case {
  int32_t devices, stages;
  cov_model_shape shape;
  cov_lora_options options = {3, 6.0f, 127, 17};
  int32_t collectives = COV_COLLECTIVES_ORDERED;
  int32_t replicas() const { return devices / stages; }
  // One replica has the CPU's bits.
  double tolerance() const { return replicas() == 1 ? 0 : 1e-5; }
  cov_parallel_options parallel() const { return {stages, COV_COMPUTE_F32, collectives, 0}; }
};

constexpr cov_model_shape kUntied = {29, 12, 17, 4, 2, 1, 64, 0, 500.0, 1e-6};
const cov_model_shape kTied = parallel_shapes()[1];  // 5 layers
constexpr cov_model_shape kThree = {19, 12, 10, 3, 2, 1, 64, 1, 10000.0, 1e-5};

void check_replicas(const ParallelModel& model, int32_t count) {
  const std::vector<float> first = model.read_replica(0, COV_PARAMETERS);
  for (int32_t r = 1; r < count; ++r) CHECK(model.read_replica(r, COV_PARAMETERS) == first);
}

// A kept forward and its backward, then a step of the adapters from it.
void passes(const Case& c, const TestModel& cpu, const CpuAdapters& expected, const ParallelModel& model,
            const Adapters& found) {
  const TestBatch batch(c.shape, 5, 9, 5);
  const size_t count = batch.tokens.size();
  const std::vector<float> coefficients = Numbers(7).floats(static_cast<int64_t>(count));
  std::vector<float> log_probs(count), cpu_log_probs(count);
  const cov_forward_output cpu_output = {cpu_log_probs.data(), nullptr, nullptr, nullptr};
  const cov_forward_options keep = {1, 0, 1.0f};
  const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
  CHECK_OK(cov_model_forward(cpu, &batch.batch, &keep, &cpu_output));
  CHECK_OK(cov_parallel_model_forward(model, &batch.batch, &keep, &output));
  CHECK(log_probs == cpu_log_probs);  // sequences do not meet
  CHECK_OK(cov_model_backward(cpu, coefficients.data(), count));
  CHECK_OK(cov_parallel_model_backward(model, coefficients.data(), count));
  const std::vector<float> gradients = expected.read(COV_GRADIENTS);
  CHECK_NEAR(difference(found.read(COV_GRADIENTS), gradients.data()), 0, c.tolerance());
  // What is read is written back, in two pieces that meet inside an adapter.
  const uint64_t part = gradients.size() / 2 + 1;
  CHECK_OK(cov_device_lora_write(found, COV_GRADIENTS, 0, part, gradients.data()));
  CHECK_OK(cov_device_lora_write(found, COV_GRADIENTS, part, gradients.size() - part,
                                 gradients.data() + part));
  CHECK(found.read(COV_GRADIENTS) == gradients);
  float norm = 0, cpu_norm = 0;
  CHECK_OK(cov_lora_optimizer_step(expected, &kAdamw, &cpu_norm));
  CHECK_OK(cov_device_lora_optimizer_step(found, &kAdamw, &norm));
  CHECK(norm == cpu_norm);
  if (c.replicas() == 1) check_equal(found, expected);
}

// With three stages, the last of the steps has a batch that makes three groups of a single device.
void steps(const Case& c, const TestModel& cpu, const CpuAdapters& expected, const ParallelModel& model,
           const Adapters& found) {
  for (uint32_t step = 0; step < 3; ++step) {
    const bool large = step == 2 && c.stages == 3;
    const TestBatch batch(c.shape, large ? 65 : 5, large ? 32 : 9, 5 + step);
    double loss = 0, cpu_loss = 0;
    float norm = 0, cpu_norm = 0;
    CHECK_OK(cov_model_train_step(cpu, &batch.batch, &kAdamw, &cpu_loss, &cpu_norm));
    CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, &loss, &norm));
    CHECK_NEAR(loss, cpu_loss, 10 * c.tolerance());
    CHECK_NEAR(norm, cpu_norm, 10 * c.tolerance() * static_cast<double>(cpu_norm));
  }
  if (c.replicas() == 1) check_equal(found, expected);
  CHECK(cov_device_lora_step_count(found) == 4 && cov_parallel_model_step_count(model) == 0);
  CHECK_CODE(cov_parallel_model_optimizer_step(model, &kAdamw, nullptr), COV_FAILED_PRECONDITION);
}

// What is merged shows that all replicas have the same adapters. A second merge is stacked on the first.
void merges(const Case& c, const TestModel& cpu, const CpuAdapters& expected, const ParallelModel& model,
            const Adapters& found, const std::vector<float>& parameters) {
  const auto same = [&] {
    check_replicas(model, c.replicas());
    const std::vector<float> values = model.read(COV_PARAMETERS);
    if (c.replicas() == 1)
      CHECK_SAME(values.data(), cpu.buffer(COV_PARAMETERS), values.size() * sizeof(float));
  };
  CHECK_OK(cov_lora_merge(expected, 1));
  CHECK_OK(cov_device_lora_merge(found, 1));
  same();
  CHECK(model.read(COV_PARAMETERS) != parameters);
  const TestBatch batch(c.shape, 5, 9, 5);
  CHECK_CODE(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_FAILED_PRECONDITION);
  {
    const CpuAdapters cpu_second(cpu, {2, 1.0f, 0b1010101, 5});
    const Adapters second(model, {2, 1.0f, 0b1010101, 5}, cpu_second.read(COV_PARAMETERS));
    CHECK_OK(cov_lora_merge(cpu_second, 1));
    CHECK_OK(cov_device_lora_merge(second, 1));
    same();
    CHECK_CODE(cov_device_lora_unmerge(found), COV_FAILED_PRECONDITION);
    CHECK_OK(cov_lora_unmerge(cpu_second));
    CHECK_OK(cov_device_lora_unmerge(second));
    same();
  }
  CHECK_OK(cov_parallel_model_use_lora(model, found));
  CHECK_OK(cov_lora_unmerge(expected));
  CHECK_OK(cov_device_lora_unmerge(found));
  CHECK(model.read(COV_PARAMETERS) == parameters);
  CHECK_OK(cov_lora_merge(expected, 0));
  CHECK_OK(cov_device_lora_merge(found, 0));
  same();
  CHECK_OK(cov_parallel_model_use_lora(model, nullptr));
  CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
}

std::vector<float> equals_cpu(const Case& c) {
  const std::vector<float> parameters = lively_parameters(c.shape, 3);
  const TestModel cpu(c.shape, parameters);
  const CpuAdapters expected(cpu, c.options);
  const ParallelModel model(c.devices, c.shape, parameters, c.parallel());
  const Adapters found(model, c.options, expected.read(COV_PARAMETERS));
  CHECK(found.initial == expected.initial);
  CHECK(found.read(COV_PARAMETERS) == expected.read(COV_PARAMETERS));
  passes(c, cpu, expected, model, found);
  steps(c, cpu, expected, model, found);
  CHECK(model.read(COV_PARAMETERS) == parameters);
  std::vector<float> trained = found.read(COV_PARAMETERS);
  merges(c, cpu, expected, model, found, parameters);
  return trained;
}

// Stages of a bf16 model: near the bf16 model of one device, the same bits on a rerun.
void bf16(int32_t stages) {
  const cov_lora_options options = {3, 6.0f, 127, 17};
  const std::vector<float> parameters = lively_parameters(kThree, 3);
  const DevicePointer device = open_device();
  const DeviceModel one(device.get(), kThree, parameters, COV_COMPUTE_BF16);
  const TestModel cpu(kThree, parameters);
  const std::vector<float> values = CpuAdapters(cpu, options).read(COV_PARAMETERS);
  const DeviceAdapters<cov_device_model> single(one, options, values);
  const TestBatch batch(kThree, 9, 5, 77);
  double expected = 0, loss = 0;
  CHECK_OK(cov_device_model_train_step(one, &batch.batch, &kAdamw, &expected, nullptr));
  std::vector<float> runs[2];
  for (std::vector<float>& run : runs) {
    const ParallelModel model(stages, kThree, parameters, {stages, COV_COMPUTE_BF16, 0, 0});
    const Adapters found(model, options, values);
    CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, &loss, nullptr));
    CHECK_NEAR(loss / expected, 1.0, 1e-3);
    run = found.read(COV_PARAMETERS);
  }
  CHECK(runs[0] == runs[1] && runs[0] != values);
}

}  // namespace

int main() {
  if (!have_devices(2)) return kSkipped;
  equals_cpu({1, 1, kUntied});
  equals_cpu({2, 2, kTied});
  // Chunks of the norm that lie on two stages, and a part of the matrices only.
  equals_cpu({2, 2, kUntied, {64, 16.0f, 127, 9}});
  equals_cpu({2, 2, kThree, {5, 2.0f, 0b0100110, uint64_t{1} << 40}});
  const Case replicated = {2, 1, kThree};
  CHECK(equals_cpu(replicated) == equals_cpu(replicated));
  equals_cpu({2, 1, kThree, {3, 6.0f, 127, 17}, COV_COLLECTIVES_NCCL});
  equals_cpu({2, 2, kThree, {3, 6.0f, 127, 17}, COV_COLLECTIVES_NCCL});
  bf16(2);
  if (cov_device_count() > 3) {
    equals_cpu({3, 3, kUntied});
    equals_cpu({3, 3, kThree});
    equals_cpu({4, 4, kTied});
    equals_cpu({4, 1, kThree});
    const Case both = {4, 2, kTied};
    CHECK(equals_cpu(both) == equals_cpu(both));
  }
  TEST_MAIN_END("cuda parallel lora");
}
