import type { JobSpec, TaskSpec } from "./job.ts";
import { isValidResources } from "./resources.ts";

/** Bounds of what a job may ask for. */
export const jobLimits = {
  tasksMax: 256,
  nameLengthMax: 63,
  configBytesMax: 256 * 1024,
  restartsMax: 1_000,
  startDelaySecondsMax: 86_400,
  graceSecondsMax: 600,
  pendingTimeoutSecondsMax: 7 * 86_400,
  runSecondsMax: 90 * 86_400,
} as const;

/** One thing that is wrong with a job, and where. */
export interface SpecProblem {
  /** Path of the field, for example "tasks[2].name". */
  readonly field: string;
  readonly problem: string;
}

const namePattern = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

/** Everything wrong with a job at once; empty when it can be accepted. */
export function checkJobSpec(spec: JobSpec): SpecProblem[] {
  const problems: SpecProblem[] = [];
  checkName("name", spec.name, problems);
  checkRange(
    "pendingTimeoutSeconds",
    spec.pendingTimeoutSeconds,
    1,
    jobLimits.pendingTimeoutSecondsMax,
    problems,
  );
  checkRange("maxRunSeconds", spec.maxRunSeconds, 1, jobLimits.runSecondsMax, problems);
  if (spec.tasks.length === 0) problems.push({ field: "tasks", problem: "is empty" });
  if (spec.tasks.length > jobLimits.tasksMax) {
    problems.push({ field: "tasks", problem: `has more than ${jobLimits.tasksMax} entries` });
  }
  const seen = new Set<string>();
  for (const [index, task] of spec.tasks.slice(0, jobLimits.tasksMax).entries()) {
    checkTask(`tasks[${index}]`, task, problems);
    if (seen.has(task.name)) {
      problems.push({ field: `tasks[${index}].name`, problem: `repeats "${task.name}"` });
    }
    seen.add(task.name);
  }
  return problems;
}

function checkTask(path: string, task: TaskSpec, problems: SpecProblem[]): void {
  checkName(`${path}.name`, task.name, problems);
  checkName(`${path}.workload`, task.workload, problems);
  checkRange(`${path}.maxRestarts`, task.maxRestarts, 0, jobLimits.restartsMax, problems);
  checkRange(
    `${path}.startDelaySeconds`,
    task.startDelaySeconds,
    0,
    jobLimits.startDelaySecondsMax,
    problems,
  );
  checkRange(`${path}.graceSeconds`, task.graceSeconds, 1, jobLimits.graceSecondsMax, problems);
  if (!isValidResources(task.resources)) {
    problems.push({ field: `${path}.resources`, problem: "are not whole numbers of at least 0" });
  }
  if (task.configJson.length > jobLimits.configBytesMax) {
    problems.push({
      field: `${path}.configJson`,
      problem: `is longer than ${jobLimits.configBytesMax} bytes`,
    });
  } else if (!isJsonObject(task.configJson)) {
    problems.push({ field: `${path}.configJson`, problem: "is not a JSON object" });
  }
}

function checkName(field: string, name: string, problems: SpecProblem[]): void {
  if (name.length === 0 || name.length > jobLimits.nameLengthMax || !namePattern.test(name)) {
    const rule = `1 to ${jobLimits.nameLengthMax} lower-case letters, digits and inner hyphens`;
    problems.push({ field, problem: `must be ${rule}` });
  }
}

function checkRange(
  field: string,
  value: number,
  min: number,
  max: number,
  problems: SpecProblem[],
): void {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    problems.push({ field, problem: `must be a whole number from ${min} to ${max}` });
  }
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
