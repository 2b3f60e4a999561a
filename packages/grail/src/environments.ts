import { arithmetic } from "./arithmetic.ts";
import { type Environment, environmentId } from "./environment.ts";

const environments = [arithmetic];

/** The environment with this name and version, or undefined. */
export function findEnvironment(id: string): Environment | undefined {
  return environments.find((environment) => environmentId(environment) === id);
}
