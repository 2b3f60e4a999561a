/**
 * What a task needs and a node offers, in whole units: thousandths of a core, bytes, thousandths of
 * a GPU. Integers only, so that sums never drift.
 */
export interface Resources {
  readonly milliCpu: number;
  readonly memoryBytes: number;
  readonly milliGpu: number;
}

/** Nothing at all. */
export const noResources: Resources = { milliCpu: 0, memoryBytes: 0, milliGpu: 0 };

/** True when every amount is a whole number of at least 0 that sums can hold exactly. */
export function isValidResources(resources: Resources): boolean {
  return amounts(resources).every((amount) => Number.isSafeInteger(amount) && amount >= 0);
}

/** a + b. */
export function addResources(a: Resources, b: Resources): Resources {
  return {
    milliCpu: a.milliCpu + b.milliCpu,
    memoryBytes: a.memoryBytes + b.memoryBytes,
    milliGpu: a.milliGpu + b.milliGpu,
  };
}

/** a − b; may go below 0, which {@link fits} then refuses. */
export function subtractResources(a: Resources, b: Resources): Resources {
  return {
    milliCpu: a.milliCpu - b.milliCpu,
    memoryBytes: a.memoryBytes - b.memoryBytes,
    milliGpu: a.milliGpu - b.milliGpu,
  };
}

/** True when `demand` fits into `free` in every dimension. */
export function fits(demand: Resources, free: Resources): boolean {
  return lacking(demand, free).length === 0;
}

/** The dimensions in which `demand` exceeds `free`, as people call them. */
export function lacking(demand: Resources, free: Resources): string[] {
  const short: string[] = [];
  if (demand.milliCpu > free.milliCpu) short.push("CPU");
  if (demand.memoryBytes > free.memoryBytes) short.push("memory");
  if (demand.milliGpu > free.milliGpu) short.push("GPU");
  return short;
}

/** For messages, for example "1500 mCPU, 512 MiB". Zero amounts are left out. */
export function describeResources(resources: Resources): string {
  const parts: string[] = [];
  if (resources.milliCpu > 0) parts.push(`${resources.milliCpu} mCPU`);
  if (resources.memoryBytes > 0) parts.push(describeBytes(resources.memoryBytes));
  if (resources.milliGpu > 0) parts.push(`${resources.milliGpu} mGPU`);
  return parts.length === 0 ? "nothing" : parts.join(", ");
}

function describeBytes(bytes: number): string {
  const mebibyte = 1024 * 1024;
  return bytes >= mebibyte ? `${Math.ceil(bytes / mebibyte)} MiB` : `${bytes} B`;
}

/**
 * Share of the node that would be in use after placing, averaged over the dimensions that the node
 * has; 0 empty, 1 full. Packing prefers the highest, spreading the lowest.
 */
export function fillShare(capacity: Resources, freeAfter: Resources): number {
  const total = amounts(capacity);
  const free = amounts(freeAfter);
  let sum = 0;
  let dimensions = 0;
  for (let i = 0; i < total.length; i += 1) {
    if (total[i]! > 0) {
      sum += 1 - free[i]! / total[i]!;
      dimensions += 1;
    }
  }
  return dimensions === 0 ? 0 : sum / dimensions;
}

function amounts(resources: Resources): number[] {
  return [resources.milliCpu, resources.memoryBytes, resources.milliGpu];
}
