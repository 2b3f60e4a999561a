// The limits of the machine on their own: the runner puts them into the description of the machine.
#include <thread>

#include "limits.h"

using namespace covenant_bench;

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int threads = 1; threads <= all; threads *= 2) {
    print(options, {.id = "limit.memory." + std::to_string(threads),
                    .metric = "memory bandwidth, " + std::to_string(threads) + " thread(s)",
                    .value = memory_gbps(threads, options),
                    .unit = "GB/s"});
  }
  print(options, {.id = "limit.fp32",
                  .metric = "fp32 multiply-adds, one core",
                  .value = fp32_peak_gflops(options),
                  .unit = "GFLOP/s"});
  print(options, {.id = "limit.bf16",
                  .metric = "bf16 dot products, one core",
                  .value = bf16_peak_gflops(options),
                  .unit = "GFLOP/s"});
  return 0;
}
