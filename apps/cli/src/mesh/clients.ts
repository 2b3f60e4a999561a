// Clients of the services, as the operator.
import { Billing, Scheduler } from "@covenant/contracts/basilica";
import { Validator } from "@covenant/contracts/gauntlet";
import { PostTraining } from "@covenant/contracts/grail";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { createClient } from "@covenant/runtime";
import type { TlsFiles } from "./identities.ts";
import type { Ports } from "./layout.ts";

/** The services that are there from the start; the validator is a job and is connected to when it runs. */
export function operatorClients(ports: Ports, operator: TlsFiles) {
  const options = (port: number) => ({
    url: `https://127.0.0.1:${port}`,
    caFile: operator.caFile,
    tls: operator,
  });
  return {
    scheduler: createClient(Scheduler, options(ports.scheduler)),
    billing: createClient(Billing, options(ports.scheduler)),
    postTraining: createClient(PostTraining, options(ports.grail)),
    registry: createClient(CheckpointRegistry, options(ports.registry)),
    validatorAt: (endpoint: string) =>
      createClient(Validator, { ...options(0), url: `https://${endpoint}` }),
  };
}

export type OperatorClients = ReturnType<typeof operatorClients>;
