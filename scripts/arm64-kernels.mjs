// The kernels for 64-bit ARM, on a machine of another kind: they must compile with the cross compiler, and where there is
// an emulator the tests that promise bits or decode foreign bytes must pass. Says so when it can do neither.
import { spawnSync } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { buildKernels, has, kernels } from "./cmake.ts";

const folder = path.join(kernels, "build", "arm64");
/** What an emulator finishes in seconds. */
const tests =
  "^(sparse|hash|codec)/|^engine/(rng|kernels|bad_input|golden[a-z_]*|bf16)$|^examples/exchange";

if (!has("aarch64-linux-gnu-g++")) {
  process.stdout.write(
    "SKIPPED: there is no cross compiler; on Debian run apt-get install g++-aarch64-linux-gnu qemu-user.\n",
  );
  process.exit(0);
}
buildKernels({
  folder,
  definitions: {
    CMAKE_TOOLCHAIN_FILE: path.join(kernels, "cmake", "aarch64-linux-gnu.cmake"),
    COVENANT_BUILD_NODE: "OFF",
    COVENANT_BUILD_CUDA: "OFF",
  },
  jobs: 2,
  failure: "The kernels do not compile for aarch64; see above.",
});
process.stdout.write("The kernels compile for aarch64.\n");
if (!["qemu-aarch64", "qemu-aarch64-static"].some(has)) {
  process.stdout.write(
    "SKIPPED: their tests need an emulator; on Debian run apt-get install qemu-user.\n",
  );
  process.exit(0);
}
const args = ["--test-dir", folder, "--output-on-failure", "-j", "2", "-R", tests];
process.exit(spawnSync("ctest", args, { stdio: "inherit" }).status ?? 1);
