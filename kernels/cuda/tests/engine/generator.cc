// The long-lived generator on a device: whatever joins, leaves, is cancelled or loses its pages, every request
// yields what it yields on the CPU, and with the weights of a bf16 model what it yields alone; the same with and
// without graphs, with faults in between, and while the model is trained.
#include <cstdlib>

#include "adapters.h"
#include "generators.h"
#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_model_shape kLong = {37, 16, 20, 1, 4, 2, 192, 0, 10000.0, 1e-5};

bool emulated() {
  cov_device_info info{};
  CHECK_OK(cov_device_info_at(0, &info));
  return info.compute_capability == 0;
}

uint64_t memory_of(cov_device* device) {
  uint64_t bytes = 0, peak = 0;
  CHECK_OK(cov_device_memory(device, &bytes, &peak));
  return bytes;
}

// Random schedules with and without graphs, with page accounting at the end of each.
void schedules(cov_device* device) {
  for (const cov_model_shape& shape : {tiny_shape(), kLong}) {
    const uint32_t seeds = kSanitized ? 2 : shape.max_positions < 100 ? 12 : 4;
    const std::vector<float> parameters = lively_parameters(shape, 21);
    const std::vector<Job> jobs = make_jobs(shape, 14, 22);
    const DeviceModel exact(device, shape, parameters), rounded(device, shape, parameters, COV_COMPUTE_BF16);
    std::vector<Completion> expected[3], in_bf16;
    for (int32_t type = 0; type < 3; ++type) expected[type] = on_cpu(shape, parameters, jobs, type);
    for (const Job& job : jobs) in_bf16.push_back(alone<OnDevice>(rounded, job, COV_WEIGHTS_F32));
    uint64_t steady = 0;
    for (uint32_t seed = 1; seed <= seeds; ++seed) {
      for (cov_device_model* const model :
           {static_cast<cov_device_model*>(exact), static_cast<cov_device_model*>(rounded)})
        CHECK_OK(cov_device_model_set_graphs(model, seed % 3 == 0 ? 0 : 1));
      const int32_t type = static_cast<int32_t>(seed % 4) - 1;
      if (type < 0)
        check_schedule<OnDevice>(rounded, shape, seed, COV_WEIGHTS_F32, in_bf16, jobs);
      else
        check_schedule<OnDevice>(seed == 6 ? rounded : exact, shape, seed, type, expected[type], jobs);
      if (seed == 4) steady = memory_of(device);
      CHECK(seed < 4 || memory_of(device) == steady);
    }
    cov_device_graphs graphs{};
    CHECK_OK(cov_device_model_graphs(exact, &graphs));
    CHECK(graphs.captured > 0 && graphs.launched > graphs.captured && graphs.refusal.code == COV_OK);
  }
}

void pages(cov_device* device) {
  const std::vector<float> parameters = lively_parameters(kLong, 23);
  const TestModel cpu(kLong, parameters);
  const DeviceModel model(device, kLong, parameters);
  const Alone on_cpu = [&](const Job& job) { return alone<CpuGenerator>(cpu, job, COV_WEIGHTS_F32); };
  check_pages_run_out<OnDevice>(model, kLong, on_cpu);
  check_prefix_sharing<OnDevice>(model, kLong, on_cpu);
}

void requests(cov_device* device) {
  const cov_model_shape shape = tiny_shape();
  const DeviceModel model(device, shape, lively_parameters(shape, 35)), broken(device, shape, broken_parameters());
  check_non_finite<OnDevice>(broken, 3);
  check_request_limit<OnDevice>(model);
  check_bad_input<OnDevice>(model);
  cov_device_generator* generator = nullptr;
  CHECK_CODE(cov_device_generator_refresh(nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_generator_cancel(nullptr, 1), COV_INVALID_ARGUMENT);
  CHECK(cov_device_generator_get_state(nullptr).page_bytes == 0);
  const cov_model_shape endless = {11, 4, 4, 1, 1, 1, 30000, 1, 10000.0, 1e-5};
  const DeviceModel longer(device, endless, lively_parameters(endless, 5));
  const cov_generator_options options = {};
  CHECK_OK(cov_device_generator_create(longer, &options, &generator));
  const int32_t prompt = 1;
  cov_generate_request request = {&prompt, 1, 24001, 1.0f, 0, 0.0f, nullptr, 0, {}};
  CHECK_CODE(cov_device_generator_submit(generator, &request, nullptr, 0, nullptr), COV_UNSUPPORTED);
  request.max_new_tokens = 24000;
  CHECK_OK(cov_device_generator_submit(generator, &request, nullptr, 0, nullptr));
  cov_device_generator_release(generator);
}

// Where there is room for a few pages only, a request that needs more fails, and the next one works.
void memory_limit() {
  const cov_model_shape shape = small_shape();
  const std::vector<float> parameters = lively_parameters(shape, 25);
  std::vector<Job> jobs = make_jobs(shape, 2, 26);
  jobs[0].request.max_new_tokens = shape.max_positions - jobs[0].request.prompt_length;
  jobs[0].request.stop_token_count = 0;
  jobs[1].request.max_new_tokens = 2;
  jobs[1].request.prompt_length = std::min(jobs[1].request.prompt_length, 10);
  const cov_generator_options options = {COV_WEIGHTS_F32, 1, 16, 0, 0};
  uint64_t limit = 0;
  for (const bool limited : {false, true}) {
    const DevicePointer device = open_device(limit);
    const DeviceModel model(device.get(), shape, parameters);
    cov_device_generator* generator = nullptr;
    CHECK_OK(cov_device_generator_create(model, &options, &generator));
    uint64_t bytes = 0, peak = 0;
    CHECK_OK(cov_device_memory(device.get(), &bytes, &peak));
    limit = peak + 4 * cov_device_generator_get_state(generator).page_bytes;
    if (limited) {
      Completions completions;
      for (const Job& job : jobs)
        CHECK_OK(cov_device_generator_submit(generator, &job.request, &kFingerprint, 0, nullptr));
      run_to_end<OnDevice>(generator, completions);
      CHECK(completions[1].reason == COV_FINISH_FAILED && completions[1].status.code == COV_MEMORY_LIMIT);
      CHECK(completions[1].tokens.size() >= 20);
      const std::vector<Completion> expected = on_cpu(shape, parameters, jobs);
      CHECK(begins_like(completions[1], expected[0]));
      CHECK(completions[2].tokens == expected[1].tokens && begins_like(completions[2], expected[1]));
      CHECK(cov_device_generator_get_state(generator).pages == 0);
    }
    cov_device_generator_release(generator);
  }
  // Whatever is refused, at creation or in a step: what the model holds is what it held, and the rest works.
  const Completion expected = on_cpu(shape, parameters, jobs)[1];
  uint64_t held = 0;
  {
    const DevicePointer device = open_device();
    const DeviceModel model(device.get(), shape, parameters);
    held = memory_of(device.get());
  }
  int refused = 0, done = 0;
  for (int i = 1; i <= 24; ++i) {
    const DevicePointer device = open_device(held + (limit - held) * static_cast<uint64_t>(i) / 24);
    const DeviceModel model(device.get(), shape, parameters);
    cov_device_generator* generator = nullptr;
    const cov_status status = cov_device_generator_create(model, &options, &generator);
    if (status.code != COV_OK) {
      CHECK_CODE(status, COV_MEMORY_LIMIT);
      CHECK(generator == nullptr);
      ++refused;
      continue;
    }
    Completions completions;
    CHECK_OK(cov_device_generator_submit(generator, &jobs[1].request, &kFingerprint, 0, nullptr));
    run_to_end<OnDevice>(generator, completions);
    if (completions[1].reason == COV_FINISH_FAILED) {
      CHECK(completions[1].status.code == COV_MEMORY_LIMIT);
    } else {
      CHECK(completions[1].tokens == expected.tokens && begins_like(completions[1], expected));
      ++done;
    }
    cov_device_generator_release(generator);
  }
  CHECK(refused > 3 && done > 0);
  // No room for a generator at all.
  const DevicePointer full = open_device();
  const DeviceModel model(full.get(), shape, parameters);
  const DevicePointer tight = open_device(memory_of(full.get()) + 1000);
  const DeviceModel alone_there(tight.get(), shape, parameters);
  const uint64_t before = memory_of(tight.get());
  cov_device_generator* generator = nullptr;
  CHECK_CODE(cov_device_generator_create(alone_there, &options, &generator), COV_MEMORY_LIMIT);
  CHECK(generator == nullptr && memory_of(tight.get()) == before);
}

// What a generator yields is of its snapshot, whatever becomes of the model, until it is refreshed.
void snapshots(cov_device* device, int32_t compute) {
  const cov_model_shape shape = tiny_shape();
  const std::vector<Job> jobs = make_jobs(shape, 4, 30);
  cov_device_model* model = nullptr;
  CHECK_OK(cov_device_model_create(device, &shape, compute, &model));
  const auto write = [&](uint32_t seed) {
    const std::vector<float> parameters = lively_parameters(shape, seed);
    CHECK_OK(cov_device_model_write(model, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
  };
  const auto expected = [&] {
    std::vector<Completion> all;
    for (const Job& job : jobs) all.push_back(alone<OnDevice>(model, job, COV_WEIGHTS_F32));
    return all;
  };
  cov_device_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 3, 20, 0, 0};
  const auto run = [&](const std::vector<Completion>& wanted, const std::function<void()>& meanwhile) {
    Completions completions;
    uint64_t first = 0;
    for (const Job& job : jobs) {
      uint64_t id = 0;
      CHECK_OK(cov_device_generator_submit(generator, &job.request, &kFingerprint, 0, &id));
      if (first == 0) first = id;
    }
    for (int i = 0; i < 3; ++i) CHECK_OK(cov_device_generator_step(generator, take, &completions, nullptr));
    meanwhile();
    CHECK_CODE(cov_device_generator_refresh(generator), COV_FAILED_PRECONDITION);
    run_to_end<OnDevice>(generator, completions);
    for (size_t i = 0; i < jobs.size(); ++i) {
      const Completion& found = completions[first + i];
      CHECK(found.tokens == wanted[i].tokens && begins_like(found, wanted[i]));
    }
  };
  write(1);
  const std::vector<Completion> base = expected();
  std::vector<Completion> adapted;
  {
    const cov_lora_options lora = {3, 6.0f, 127, 17};
    const DeviceAdapters<cov_device_model> adapters(model, lora, Numbers(41).floats(1800, 0.2f));
    adapted = expected();
    CHECK(adapted[0].log_probs != base[0].log_probs);
    CHECK_OK(cov_device_generator_create(model, &options, &generator));
    CHECK(cov_device_generator_get_state(generator).weight_bytes > 0);
    CHECK_OK(cov_device_model_use_lora(model, nullptr));
  }
  // Training at twice the length that generation has had so far, beside another model's worth of work.
  TestBatch batch(shape, 2, shape.max_positions, 9);
  const cov_adamw_options step = {0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
  run(adapted, [&] {
    write(2);
    CHECK_OK(cov_device_model_train_step(model, &batch.batch, &step, nullptr, nullptr));
  });
  const std::vector<Completion> trained = expected();
  CHECK_OK(cov_device_generator_refresh(generator));
  // The generator keeps what it needs of the model.
  run(trained, [&] { write(3); });
  cov_device_model_release(model);
  run(trained, [] {});
  cov_device_generator_release(generator);
}

// A launch that fails leaves all requests as they were, wherever in the step it was.
void faults(cov_device* device) {
  const cov_model_shape shape = tiny_shape();
  const std::vector<float> parameters = lively_parameters(shape, 21);
  const std::vector<Job> jobs = make_jobs(shape, 6, 22);
  const std::vector<Completion> expected = on_cpu(shape, parameters, jobs);
  const DeviceModel model(device, shape, parameters);
  cov_device_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 4, 24, 9, 0};
  CHECK_OK(cov_device_generator_create(model, &options, &generator));
  Completions completions;
  for (const Job& job : jobs)
    CHECK_OK(cov_device_generator_submit(generator, &job.request, &kFingerprint, 0, nullptr));
  int32_t active = 1;
  for (int steps = 0, failed = 0; active > 0; ++steps) {
    CHECK(steps < 500);
    if (steps == 500) break;
    const bool fault = steps % 2 == 1 && failed < 40;
    const cov_generator_state before = cov_device_generator_get_state(generator);
    // Launches of a step: 2 + 10 for each layer, the head's and that of hidden states.
    if (fault) setenv("COVENANT_EMULATION_FAULT", ("0:" + std::to_string(1 + 7 * failed % 23)).c_str(), 1);
    const cov_status status = cov_device_generator_step(generator, take, &completions, &active);
    unsetenv("COVENANT_EMULATION_FAULT");
    CHECK(status.code == COV_OK || (fault && status.code == COV_INTERNAL));
    if (status.code != COV_OK) {
      ++failed;
      CHECK(active == before.running + before.waiting);
      CHECK(cov_device_generator_get_state(generator).computed_rows == before.computed_rows);
    }
    if (active == 0) CHECK(failed > 10);
  }
  for (size_t i = 0; i < jobs.size(); ++i)
    CHECK(completions[i + 1].tokens == expected[i].tokens && begins_like(completions[i + 1], expected[i]));
  CHECK(cov_device_generator_get_state(generator).pages == 0);
  cov_device_generator_release(generator);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  schedules(device.get());
  pages(device.get());
  requests(device.get());
  memory_limit();
  for (const int32_t compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) snapshots(device.get(), compute);
  if (emulated()) faults(device.get());
  TEST_MAIN_END("cuda generator");
}
