// The kernels for 64-bit ARM, on a machine of another kind: they must compile with the cross compiler, and where there is
// an emulator the tests that promise bits or decode foreign bytes must pass. Says so when it can do neither.
import { spawnSync } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const source = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "kernels");
const folder = path.join(source, "build", "arm64");
const toolchain = path.join(source, "cmake", "aarch64-linux-gnu.cmake");
/** What an emulator finishes in seconds. */
const tests =
  "^(sparse|hash|codec)/|engine/(rng|kernels|bad_input|golden[a-z_]*|bf16)_test|examples/exchange";

const has = (command) => spawnSync(command, ["--version"]).status === 0;

/** Runs quietly; false after showing what it printed when it fails. */
function quietly(command, args) {
  const run = spawnSync(command, args, { maxBuffer: 256 << 20 });
  if (run.status !== 0) process.stderr.write(`${run.stdout}${run.stderr}`);
  return run.status === 0;
}

if (!has("aarch64-linux-gnu-g++")) {
  process.stdout.write(
    "SKIPPED: there is no cross compiler; on Debian run apt-get install g++-aarch64-linux-gnu qemu-user.\n",
  );
  process.exit(0);
}
const options = [
  ...[`-DCMAKE_TOOLCHAIN_FILE=${toolchain}`, "-DCOVENANT_BUILD_NODE=OFF"],
  ...["-DCOVENANT_BUILD_CUDA=OFF", ...(has("ninja") ? ["-G", "Ninja"] : [])],
];
const built =
  quietly("cmake", ["-S", source, "-B", folder, ...options]) &&
  quietly("cmake", ["--build", folder, "--parallel", "2"]);
if (!built) process.exit(1);
process.stdout.write("The kernels compile for aarch64.\n");
if (!["qemu-aarch64", "qemu-aarch64-static"].some(has)) {
  process.stdout.write(
    "SKIPPED: their tests need an emulator; on Debian run apt-get install qemu-user.\n",
  );
  process.exit(0);
}
const args = ["--test-dir", folder, "--output-on-failure", "-j", "2", "-R", tests];
process.exit(spawnSync("ctest", args, { stdio: "inherit" }).status ?? 1);
