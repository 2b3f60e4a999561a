import assert from "node:assert/strict";
import { test } from "node:test";
import { passedEnvironment } from "./environment.ts";

test("workloads see where programs, libraries and devices are, and none of the agent's secrets", () => {
  const passed = {
    PATH: "/bin",
    LD_LIBRARY_PATH: "/opt/cuda/lib64",
    COVENANT_CUDA_LIBRARY: "/opt/covenant/libcovenant_cuda.so",
    CUDA_VISIBLE_DEVICES: "1",
    NCCL_SOCKET_IFNAME: "eth0",
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318",
  };
  const kept = { COVENANT_BASILICA_SCHEDULER_TOKEN: "t", AWS_SECRET_ACCESS_KEY: "s", XCUDA_: "x" };
  assert.deepEqual(passedEnvironment({ ...passed, ...kept, TZ: undefined }), passed);
});
