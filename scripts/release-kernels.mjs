// `npm run release:kernels -- --out FOLDER`: packs @covenant/kernels (as JavaScript with types) and the prebuilt addon of
// a platform (@covenant/kernels-linux-x64, …) as npm packages, with their SHA-256 sums and what each needs of the
// machine. Publishing them is a step of its own: `npm publish FILE.tgz`, platforms first.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { buildKernels, has, kernels } from "./cmake.ts";
import { fail, parseOptions, usageStatus } from "./options.ts";
import { root } from "./root.ts";

const { version, license, description } = JSON.parse(
  readFileSync(path.join(kernels, "node", "package.json"), "utf8"),
);

/** Every platform that a package is made for, and what npm is to compare with the machine. */
const platforms = {
  "linux-x64": { os: ["linux"], cpu: ["x64"], libc: ["glibc"] },
  "linux-x64-cuda": { os: ["linux"], cpu: ["x64"], libc: ["glibc"], cuda: true },
  "linux-arm64": { os: ["linux"], cpu: ["arm64"], libc: ["glibc"] },
  "darwin-arm64": { os: ["darwin"], cpu: ["arm64"] },
  "darwin-x64": { os: ["darwin"], cpu: ["x64"] },
};
/** Those that every installation may get by itself; the CUDA package is large and chosen by its user. */
const automatic = Object.keys(platforms).filter((name) => !platforms[name].cuda);
const packageOf = (platform) => `@covenant/kernels-${platform}`;
const host = `${process.platform}-${process.arch}`;

const help = `Usage: npm run release:kernels -- --out FOLDER [--platform NAME]…
  --out FOLDER      where the packages, SHA256SUMS and release.json go
  --platform NAME   ${Object.keys(platforms).join(", ")}
                    (default: that of this machine, ${host})
A platform is built on itself; linux-arm64 also on linux-x64, with aarch64-linux-gnu-g++.
`;

function run(command, args, failure, cwd = root) {
  const result = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 64 << 20 });
  if (result.status === 0) return result.stdout;
  process.stderr.write(`${result.stdout ?? ""}${result.stderr ?? ""}`);
  return fail(failure);
}

/** The folder with a platform's addon, built; and the tool that strips it. */
function build(platform) {
  if (platform === host || platform === `${host}-cuda`) {
    const builder = path.join(root, "scripts", "build-kernels.mjs");
    const flags = platforms[platform].cuda ? ["--cuda"] : [];
    run(process.execPath, [builder, ...flags], "The kernels could not be built.");
    return { folder: path.join(kernels, "build"), strip: "strip" };
  }
  if (platform !== "linux-arm64" || host !== "linux-x64") {
    fail(`${platform} cannot be built on ${host}: run this command on such a machine.`);
  }
  if (!has("aarch64-linux-gnu-g++")) {
    fail(
      "linux-arm64 needs a cross compiler: on Debian run apt-get install g++-aarch64-linux-gnu.",
    );
  }
  const folder = path.join(kernels, "build", "release-linux-arm64");
  buildKernels({
    folder,
    definitions: {
      CMAKE_TOOLCHAIN_FILE: path.join(kernels, "cmake", "aarch64-linux-gnu.cmake"),
      COVENANT_BUILD_TESTS: "OFF",
      COVENANT_BUILD_CUDA: "OFF",
    },
    targets: ["covenant_node"],
    jobs: availableParallelism(),
    failure: "The kernels could not be built for linux-arm64; see above.",
  });
  return { folder, strip: "aarch64-linux-gnu-strip" };
}

/** The newest version of the GNU C library that a library asks for; undefined where it asks for none. */
function glibcNeeded(file) {
  const text = readFileSync(file).toString("latin1");
  if (text.includes("GLIBCXX_")) fail(`${file} needs the C++ library of the machine.`);
  const versions = [...text.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map((match) => [+match[1], +match[2]]);
  const newest = versions.sort((a, b) => a[0] - b[0] || a[1] - b[1]).at(-1);
  return newest?.join(".");
}

/** Which sources the packages are made from; what is not committed yet is said. */
function describeSources() {
  const git = (...args) => spawnSync("git", args, { cwd: root, encoding: "utf8" });
  const { status, stdout } = git("rev-parse", "HEAD");
  if (status !== 0) return "unknown";
  const changed = git("status", "--porcelain", "--", "kernels").stdout !== "";
  return `${stdout.trim()}${changed ? " with changes" : ""}`;
}

/** Read before the build, during which somebody may commit. */
const commit = describeSources();

function writeManifest(folder, manifest) {
  const text = `${JSON.stringify({ version, license, ...manifest }, null, 2)}\n`;
  writeFileSync(path.join(folder, "package.json"), text);
  copyFileSync(path.join(root, "LICENSE"), path.join(folder, "LICENSE"));
}

/** Lays out the package of a platform in `folder`; returns what it needs. */
function layOutPlatform(platform, folder) {
  const { folder: built, strip } = build(platform);
  const { cuda, ...filters } = platforms[platform];
  const files = ["covenant_kernels.node", ...(cuda ? ["libcovenant_cuda.so"] : [])];
  for (const file of files) {
    const from = path.join(built, file);
    if (!existsSync(from)) fail(`${from} was not built; is the CUDA compiler there?`);
    copyFileSync(from, path.join(folder, file));
    const flags = platform.startsWith("darwin") ? ["-x"] : ["--strip-unneeded"];
    run(strip, [...flags, path.join(folder, file)], `${file} could not be stripped.`);
  }
  const glibc = platform.startsWith("linux") ? glibcNeeded(path.join(folder, files[0])) : undefined;
  writeManifest(folder, {
    name: packageOf(platform),
    description: `Prebuilt kernels of Covenant Mesh for ${platform}.`,
    ...filters,
    files,
    main: files[0],
    covenant: { commit, ...(glibc ? { glibc } : {}) },
  });
  writeFileSync(
    path.join(folder, "README.md"),
    `# ${packageOf(platform)}\n\nThe addon of @covenant/kernels for ${platform}` +
      `${glibc ? `, GNU C library ${glibc} or newer` : ""}. It is no use alone: install\n` +
      "@covenant/kernels, which loads it.\n",
  );
  return glibc ? { glibc } : {};
}

/** Lays out @covenant/kernels: JavaScript and types, because Node runs no TypeScript from node_modules. */
function layOutWrapper(folder) {
  const config = path.join(folder, "tsconfig.json");
  const from = path.join(kernels, "node", "src");
  writeFileSync(
    config,
    JSON.stringify({
      extends: path.join(root, "tsconfig.base.json"),
      compilerOptions: {
        noEmit: false,
        declaration: true,
        rewriteRelativeImportExtensions: true,
        rootDir: from,
        outDir: path.join(folder, "src"),
        typeRoots: [path.join(root, "node_modules", "@types")],
      },
      include: [path.join(from, "*.ts")],
      exclude: ["*.test.ts", "testing.ts", "test-support.ts"].map((name) => path.join(from, name)),
    }),
  );
  const tsc = path.join(root, "node_modules", ".bin", "tsc");
  run(tsc, ["-p", config], "The TypeScript wrapper could not be compiled.");
  rmSync(config);
  writeManifest(folder, {
    name: "@covenant/kernels",
    description,
    type: "module",
    exports: { ".": { types: "./src/index.d.ts", default: "./src/index.js" } },
    files: ["src"],
    engines: { node: ">=24" },
    optionalDependencies: Object.fromEntries(automatic.map((name) => [packageOf(name), version])),
  });
  copyFileSync(path.join(kernels, "node", "README.md"), path.join(folder, "README.md"));
  return {};
}

/** Packs what `layOut` makes; returns the file's name, size, sum and needs. */
function pack(out, layOut) {
  const folder = mkdtempSync(path.join(tmpdir(), "covenant-release-"));
  try {
    const needs = layOut(folder);
    const args = ["pack", "--json", "--pack-destination", out];
    const [packed] = JSON.parse(run("npm", args, "npm could not pack.", folder));
    const content = readFileSync(path.join(out, packed.filename));
    const sha256 = createHash("sha256").update(content).digest("hex");
    return { name: packed.name, file: packed.filename, bytes: content.length, sha256, ...needs };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function main() {
  const text = { type: "string" };
  const options = parseOptions(
    { out: text, platform: { ...text, multiple: true, default: [host] } },
    help,
  );
  if (options.out === undefined) {
    fail(`Say where the packages go: --out FOLDER.\n${help.trimEnd()}`, usageStatus);
  }
  const unknown = options.platform.find((name) => !Object.hasOwn(platforms, name));
  if (unknown) {
    const known = Object.keys(platforms).join(", ");
    fail(`Unknown platform ${unknown}; there are ${known}.`, usageStatus);
  }
  const out = path.resolve(options.out);
  try {
    mkdirSync(out, { recursive: true });
  } catch (error) {
    fail(`The packages cannot be written to ${out}: ${error.message}.`);
  }
  const packages = [
    pack(out, layOutWrapper),
    ...options.platform.map((name) => pack(out, (folder) => layOutPlatform(name, folder))),
  ];
  const sums = packages.map(({ sha256, file }) => `${sha256}  ${file}\n`).join("");
  writeFileSync(path.join(out, "SHA256SUMS"), sums);
  const release = { version, commit, packages };
  writeFileSync(path.join(out, "release.json"), `${JSON.stringify(release, null, 2)}\n`);
  for (const { file, bytes, glibc } of packages) {
    const needs = glibc ? `, needs glibc ${glibc}` : "";
    process.stdout.write(`${file}  ${(bytes / 2 ** 20).toFixed(2)} MiB${needs}\n`);
  }
}

main();
