// NCCL's collectives over a stand-in that sums in the order of the ranks, so that the bits of the ordered
// collectives must come out; and what happens without a library that can be used. The library is looked for once
// in a process, so each part is a process of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_model_shape kShape = {19, 12, 10, 3, 2, 1, 64, 1, 10000.0, 1e-5};

std::vector<float> train(int32_t devices, const cov_parallel_options& options, std::string* report) {
  const ParallelModel model(devices, kShape, lively_parameters(kShape, 3), options);
  *report = model.report();
  for (uint32_t step = 0; step < 2; ++step) {
    const TestBatch batch(kShape, 5, 9, 20 + step);
    CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
  }
  return model.read(COV_PARAMETERS);
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

void compare(int32_t devices, int32_t stages, int32_t compute, const char* expected_report) {
  std::string ordered_report, report;
  const std::vector<float> ordered =
      train(devices, {stages, compute, COV_COLLECTIVES_ORDERED, 0}, &ordered_report);
  const std::vector<float> found =
      train(devices, {stages, compute, COV_COLLECTIVES_NCCL, 0}, &report);
  if (!contains(report, expected_report)) std::printf("report: %s\n", report.c_str());
  CHECK(contains(report, expected_report));
  CHECK(!contains(ordered_report, "NCCL"));
  CHECK_SAME(found.data(), ordered.data(), found.size() * sizeof(float));
}

void with_library() {
  for (const int32_t compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) {
    compare(3, 1, compute, "NCCL 2.27.3");
    compare(2, 2, compute, "NCCL 2.27.3");
    compare(4, 2, compute, "NCCL 2.27.3");
  }
}

void too_old() {
  setenv("FAKE_NCCL_VERSION", "2708", 1);
  compare(2, 1, COV_COMPUTE_F32, "NCCL is not used: ");
  compare(2, 2, COV_COMPUTE_F32, "2.10 or newer is needed");
}

void absent() {
  setenv("COVENANT_NCCL_LIBRARY", "/nowhere/libnccl.so.2", 1);
  compare(2, 1, COV_COMPUTE_F32, "NCCL is not used: /nowhere/libnccl.so.2 does not load");
}

// A collective that fails: a status, no step, parameters as before.
void failing() {
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel model(2, kShape, parameters, {1, COV_COMPUTE_F32, COV_COLLECTIVES_NCCL, 0});
  const TestBatch batch(kShape, 5, 9, 20);
  setenv("FAKE_NCCL_FAIL", "1", 1);
  for (int i = 0; i < 2; ++i)
    CHECK_CODE(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
               COV_INTERNAL);
  CHECK(cov_parallel_model_step_count(model) == 0);
  const std::vector<float> found = model.read(COV_PARAMETERS);
  CHECK_SAME(found.data(), parameters.data(), found.size() * sizeof(float));
}

void in_a_process(void (*part)()) {
  const pid_t child = fork();
  if (child == 0) {
    part();
    std::_Exit(failures == 0 ? 0 : 1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

int main() {
  // Nothing of CUDA is touched before the processes part.
  if (std::getenv("COVENANT_NCCL_LIBRARY") == nullptr) {
    std::printf("skipped: the stand-in for NCCL works on emulated devices only\n");
    return kSkipped;
  }
  for (const auto part : {with_library, too_old, absent, failing}) in_a_process(part);
  TEST_MAIN_END("cuda nccl");
}
