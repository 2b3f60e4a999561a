import { isIP } from "node:net";
import { type BlockContext, emit, neuronOf, subnetOf } from "./context.ts";
import { ensure } from "./errors.ts";
import type { Address } from "./types.ts";

/** Publishes where a neuron is reached; an IP literal and a port, at most once per rate limit. */
export function serveAxon(
  context: BlockContext,
  hotkey: Address,
  args: { netuid: number; version: number; host: string; port: number; protocol: number },
): void {
  const subnet = subnetOf(context.state, args.netuid);
  const { uid, neuron } = neuronOf(subnet, hotkey);
  const rules = subnet.hyperparameters;
  ensure(isAllowedHost(args.host, rules.allowLoopbackEndpoints), "InvalidIpAddress", args.host);
  ensure(args.port !== 0, "InvalidPort");
  const last = neuron.endpoint?.servedAtBlock;
  ensure(
    last === undefined || context.block - last >= rules.servingRateLimitBlocks,
    "ServingRateLimitExceeded",
  );
  const { netuid, ...endpoint } = args;
  neuron.endpoint = { ...endpoint, servedAtBlock: context.block };
  emit(context, "AxonServed", { netuid, uid, hotkey });
}

function isAllowedHost(host: string, allowLoopback: boolean): boolean {
  const family = isIP(host);
  if (family === 0 || host.includes("%")) return false;
  if (family === 4) {
    return host !== "0.0.0.0" && (allowLoopback || !host.startsWith("127."));
  }
  const canonical = new URL(`http://[${host}]`).hostname;
  return canonical !== "[::]" && (allowLoopback || canonical !== "[::1]");
}
