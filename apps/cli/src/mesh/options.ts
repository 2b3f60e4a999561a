// What `covenant up` was asked to do, checked as a whole before anything starts.
import path from "node:path";
import { DEVICE_SETTING, devicesOf, missingDevice } from "@covenant/models";
import { CovenantError } from "@covenant/runtime";
import { type Preset, presets } from "./preset.ts";

/** Flags as the command line gives them. */
export interface UpFlags {
  data: string;
  fresh: boolean;
  once: boolean;
  report?: string;
  preset: string;
  rounds?: string;
  seed: string;
  consolePort: string;
  apiPort: string;
  threads: string;
  device: string;
}

/** Checked options. */
export interface UpOptions {
  dataDirectory: string;
  fresh: boolean;
  once: boolean;
  reportFile: string | undefined;
  preset: Preset;
  seed: bigint;
  consolePort: number;
  apiPort: number;
  /** Threads of each participant's engine. */
  threads: number;
  /** Where models compute: the setting of that name of all services that hold one. */
  device: string;
}

const roundsMax = 10_000;
const threadsMax = 256;

/** @throws CovenantError COV_CONFIG_INVALID that names every wrong flag at once. */
export function checkUpFlags(flags: UpFlags): UpOptions {
  const faults: string[] = [];
  const integer = (flag: string, text: string, min: number, max: number) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    faults.push(`${flag} is "${text}"; it takes a whole number from ${min} to ${max}.`);
    return min;
  };
  const preset = presets[flags.preset];
  if (!preset) {
    faults.push(`--preset is "${flags.preset}"; there are ${Object.keys(presets).join(", ")}.`);
  }
  const rounds =
    flags.rounds === undefined ? undefined : integer("--rounds", flags.rounds, 1, roundsMax);
  const options: UpOptions = {
    dataDirectory: path.resolve(flags.data),
    fresh: flags.fresh,
    once: flags.once,
    reportFile: flags.report === undefined ? undefined : path.resolve(flags.report),
    preset: { ...(preset ?? presets.demo!), ...(rounds === undefined ? {} : { rounds }) },
    seed: BigInt(integer("--seed", flags.seed, 0, 2 ** 32 - 1)),
    consolePort: integer("--console-port", flags.consolePort, 0, 65_535),
    apiPort: integer("--api-port", flags.apiPort, 0, 65_535),
    threads: integer("--threads", flags.threads, 1, threadsMax),
    device: flags.device,
  };
  const fault = deviceFault(options.device);
  if (fault !== undefined) faults.push(`--device is "${options.device}"; ${fault}.`);
  if (options.consolePort !== 0 && options.consolePort === options.apiPort) {
    faults.push("--console-port and --api-port are the same; each needs a port of its own.");
  }
  if (faults.length > 0) {
    throw new CovenantError("COV_CONFIG_INVALID", faults.join("\n"), {
      remedy: "Correct the flags; `covenant up --help` explains each.",
    });
  }
  return options;
}

/** Why nothing can compute there. With auto they can in any case. */
function deviceFault(setting: string): string | undefined {
  const indices = devicesOf(setting);
  if (indices === undefined) return DEVICE_SETTING;
  return setting === "auto" ? undefined : missingDevice(indices);
}
