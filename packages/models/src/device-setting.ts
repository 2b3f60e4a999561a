// What configurations say of where a model computes: "cpu", "auto", "cuda", or indices as in "cuda:0,1".
import { devices } from "@covenant/kernels";
import { z } from "zod";

/** What {@link devicesOf} takes, for a reader. */
export const DEVICE_SETTING = 'expected "cpu", "auto", "cuda" or indices as in "cuda:0,1"';

/** The part of a service's configuration that says where it computes. */
export const deviceSettings = {
  device: z
    .string()
    .refine((setting) => devicesOf(setting) !== undefined, DEVICE_SETTING)
    .default("cpu")
    .describe("What computes: cpu, cuda, cuda:0,1, or auto: the first CUDA device, else the CPU"),
  deviceLayout: z
    .enum(["data-parallel", "layer-split"])
    .default("data-parallel")
    .describe("How several CUDA devices share the work"),
};

/** The CUDA devices of a setting: none for the CPU, the first where no index is given; undefined when it is no setting. */
export function devicesOf(setting: string): number[] | undefined {
  if (setting === "cpu") return [];
  if (setting === "auto" || setting === "cuda") return [0];
  const list = /^cuda:(\d{1,4}(?:,\d{1,4})*)$/.exec(setting)?.[1];
  return list?.split(",").map(Number);
}

/** Which of the devices is not there and what is, in a sentence; undefined when all are there. */
export function missingDevice(indices: readonly number[]): string | undefined {
  if (indices.length === 0) return undefined;
  const { devices: found, report } = devices();
  const missing = indices.find((index) => index >= found.length);
  if (missing === undefined) return undefined;
  const there = found.map(({ index, name }) => `${index} (${name})`).join(", ");
  return `no CUDA device ${missing}: ${found.length === 0 ? report : `there are ${there}`}`;
}
