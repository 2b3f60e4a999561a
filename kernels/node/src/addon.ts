import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { KernelError } from "./errors.ts";

const require = createRequire(import.meta.url);

/** Names of the prebuilt packages for a platform, the one to prefer first. */
export function prebuiltPackages(platform: string, arch: string): string[] {
  const name = `@covenant/kernels-${platform}-${arch}`;
  return platform === "linux" ? [`${name}-cuda`, name] : [name];
}

interface Candidate {
  /** For the reader of an error. */
  what: string;
  file: string;
}

/** The addons there are, the one to prefer first: prebuilt packages of exactly this version, then the local build. */
function candidates(): Candidate[] {
  // Anything but .node would be run as a program.
  const forced = process.env.COVENANT_KERNELS_ADDON;
  if (forced !== undefined) {
    if (!forced.endsWith(".node")) throw new Error("its name does not end in .node");
    return existsSync(forced) ? [{ what: forced, file: forced }] : [];
  }
  const { version } = require("../package.json") as { version: string };
  const prebuilt = prebuiltPackages(process.platform, process.arch).flatMap((name) => {
    try {
      const manifest = require(`${name}/package.json`) as { version: string };
      // Another version may have other calls; the TypeScript and the addon belong together.
      if (manifest.version !== version) return [];
      return [{ what: name, file: require.resolve(`${name}/covenant_kernels.node`) }];
    } catch {
      return [];
    }
  });
  const local = fileURLToPath(new URL("../../build/covenant_kernels.node", import.meta.url));
  return [...prebuilt, ...(existsSync(local) ? [{ what: "the local build", file: local }] : [])];
}

function remedy(): string {
  const [name] = prebuiltPackages(process.platform, process.arch).slice(-1);
  return `install the package ${name}, or run "npm run build:kernels" in a clone of the repository`;
}

/**
 * Loads the addon: the file that COVENANT_KERNELS_ADDON names, else a prebuilt package, else the local build. One that
 * does not load (its C library is newer than this machine's, say) makes room for the next. Throws
 * COV_KERNELS_NOT_BUILT with the remedy when none is left.
 */
export function loadAddon(): unknown {
  const reasons: string[] = [];
  let cause: unknown;
  try {
    for (const { what, file } of candidates()) {
      try {
        return require(file);
      } catch (error) {
        cause ??= error;
        reasons.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  } catch (error) {
    cause = error;
    reasons.push(error instanceof Error ? error.message : String(error));
  }
  const what = reasons.length > 0 ? `do not load (${reasons.join("; ")})` : "are not built";
  throw new KernelError("COV_KERNELS_NOT_BUILT", `The kernels ${what}: ${remedy()}.`, { cause });
}
