// What the tests need beyond npm: a compiler, CMake and a browser. On CI they are installed or the run fails; for a
// user without root they are named, and the tests that need them say that they are skipped.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";

const has = (command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

/** Command → Debian package that brings it. */
const prerequisites = [
  { commands: ["cmake", "ctest"], debianPackage: "cmake" },
  { commands: ["c++"], debianPackage: "g++" },
  { commands: ["make"], debianPackage: "make" },
  {
    commands: ["chromium", "chromium-browser", "google-chrome"],
    debianPackage: "chromium",
    any: true,
  },
];

function missing() {
  return prerequisites.filter(({ commands, any }) =>
    any ? !commands.some(has) : !commands.every(has),
  );
}

/** Installs what is missing when this is a Debian machine and the user is root; otherwise says what is missing. */
export function installPrerequisites() {
  const wanted = missing().map((entry) => entry.debianPackage);
  if (wanted.length === 0) return;
  const mayInstall = process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
  if (mayInstall && process.env.CI === "true") {
    process.stdout.write(`Installing ${wanted.join(", ")} …\n`);
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    spawnSync("apt-get", ["update", "-q"], { stdio: "ignore", env });
    spawnSync("apt-get", ["install", "-y", "-q", "--no-install-recommends", ...wanted], {
      stdio: ["ignore", "ignore", "inherit"],
      env,
    });
  }
  const still = missing().map((entry) => entry.debianPackage);
  if (still.length === 0) return;
  process.stderr.write(`Missing on this machine: ${still.join(", ")}.\n`);
  if (process.env.CI === "true") process.exit(1);
  process.stderr.write(
    `Install them (Debian: apt-get install ${still.join(" ")}); tests that need them are skipped and say so.\n`,
  );
}
