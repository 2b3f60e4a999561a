// Brings a fresh clone to the point where everything runs: packages, kernels, console. Runs on any Node that
// npm runs on, because the pinned Node is itself one of the packages.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
/** The Node that the project pins through npm. */
export const pinnedNode = path.join(root, "node_modules", ".bin", "node");

const stampFile = path.join(root, "node_modules", ".covenant-setup.json");

function fail(sentence) {
  process.stderr.write(`${sentence}\n`);
  process.exit(1);
}

function run(command, args, { quiet, explain }) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: quiet ? ["ignore", "pipe", "pipe"] : ["ignore", 2, 2],
    env: {
      ...process.env,
      PATH: `${path.dirname(pinnedNode)}${path.delimiter}${process.env.PATH}`,
    },
    maxBuffer: 64 << 20,
  });
  if (result.error?.code === "ENOENT") fail(`${command} is not installed: ${explain}`);
  if (result.status !== 0) {
    if (quiet) process.stderr.write(`${result.stdout ?? ""}${result.stderr ?? ""}`);
    fail(explain);
  }
}

function hashOf(...files) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(readFileSync(path.join(root, file)));
  return hash.digest("hex");
}

function readStamp() {
  try {
    return JSON.parse(readFileSync(stampFile, "utf8"));
  } catch {
    return {};
  }
}

function installPackages(say) {
  const wanted = hashOf("package-lock.json");
  if (existsSync(pinnedNode) && readStamp().lock === wanted) return;
  say("Installing packages (once; about a minute) …");
  // Not `npm ci`: it refuses a lock file that lacks the optional binaries of platforms other than the one it was
  // written on. Versions come from the lock all the same, and --no-save leaves it as it is.
  run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"], {
    quiet: true,
    explain:
      "The packages could not be installed: check that the npm registry can be reached and that the disk has 1 GiB free, then run the command again.",
  });
  mkdirSync(path.dirname(stampFile), { recursive: true });
  writeFileSync(stampFile, JSON.stringify({ lock: wanted }));
}

function buildConsole(say) {
  const output = path.join(root, "apps", "console", "dist", "index.html");
  const listed = spawnSync(
    "find",
    [
      "apps/console/src",
      "apps/console/index.html",
      "packages/contracts/src",
      "-newer",
      output,
      "-type",
      "f",
    ],
    { cwd: root, encoding: "utf8" },
  );
  if (existsSync(output) && listed.status === 0 && listed.stdout.trim() === "") return;
  say("Building the web console …");
  run(
    pinnedNode,
    [path.join(root, "node_modules", "vite", "bin", "vite.js"), "build", "apps/console"],
    {
      quiet: true,
      explain: "The web console could not be built; the messages above say where.",
    },
  );
}

/** Does whatever of the set-up is missing; exits with one sentence when something cannot be done. */
export function setUp({ say = (line) => process.stderr.write(`${line}\n`) } = {}) {
  installPackages(say);
  run(pinnedNode, [path.join(root, "scripts", "build-kernels.mjs")], {
    quiet: false,
    explain: "The kernels could not be built; the line above says what is missing.",
  });
  buildConsole(say);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setUp();
