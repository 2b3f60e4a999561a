import type { ServiceImpl } from "@connectrpc/connect";
import type { PeerStatus, Trainer } from "@covenant/contracts/templar";
import type { ObjectStore } from "@covenant/objects";
import { updateKey } from "@covenant/sparseloco";
import type { Gate } from "../gate.ts";
import type { StatusBoard } from "../status.ts";

/** Size of one piece of a streamed update. */
const PIECE_BYTES = 256 * 1024;

/** What the handlers act on. */
export type TrainerModules = {
  status: StatusBoard;
  gate: Gate;
  objects: ObjectStore;
  bucket: string;
  payloadBytesMax: () => number;
};

/** The Trainer service: how an operator watches and steers one peer. */
export function trainerService(modules: TrainerModules): ServiceImpl<typeof Trainer> {
  const { status, gate, objects, bucket } = modules;
  const current = (): { status: PeerStatus } => ({ status: status.current });
  return {
    getStatus: async () => current(),
    async *watchProgress(_request, context) {
      for await (const now of status.watch(context.signal)) yield { status: now };
    },
    async pause() {
      gate.pause();
      return current();
    },
    async resume() {
      gate.resume();
      return current();
    },
    async drain() {
      gate.drain();
      return current();
    },
    async *getUpdate({ round }) {
      const maxBytes = modules.payloadBytesMax();
      const payload = await objects.get(bucket, updateKey(round), { maxBytes });
      for (let at = 0; at < payload.length; at += PIECE_BYTES) {
        yield { data: payload.subarray(at, at + PIECE_BYTES) };
      }
    },
  };
}
