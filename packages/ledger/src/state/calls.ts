import { z } from "zod";
import { hyperparametersSchema } from "./hyperparameters.ts";

/** Most values in one weights call: twice the largest subnet, so that the chain gives the error. */
const VECTOR_LIMIT = 8192;
/** Most bytes of one commitment field; Subtensor's largest raw datum. */
const FIELD_BYTES_MAX = 128;
/** Fields accepted by the parser, more than the chain allows so that the chain gives the error. */
const FIELDS_LIMIT = 16;

const netuid = z.number().int().min(0).max(65_535);
const address = z.string().min(1).max(64);
const u16 = z.number().int().min(0).max(65_535);
const vector = z.array(u16).max(VECTOR_LIMIT);
const amountRao = z.string().regex(/^\d{1,19}$/);
const versionKey = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const field = z
  .string()
  .regex(/^([0-9a-f]{2})*$/)
  .max(2 * FIELD_BYTES_MAX);

const named = <Name extends string, Shape extends z.core.$ZodLooseShape>(name: Name, args: Shape) =>
  z.strictObject({ name: z.literal(name), args: z.strictObject(args) });

/** Hyperparameters on the wire: amounts of rao as decimal text. */
const changes = z
  .record(z.string().max(64), z.union([z.number(), z.boolean(), z.string().max(20)]))
  .refine((value) => hyperparametersSchema.partial().safeParse(value).success, {
    message: "unknown hyperparameter or value out of range",
  });

/** Every call that an extrinsic can carry, by Subtensor's names where it has one. */
export const callSchema = z.discriminatedUnion("name", [
  named("transfer", { destination: address, amountRao }),
  named("burnedRegister", { netuid, hotkey: address }),
  named("addStake", { netuid, hotkey: address, amountRao }),
  named("removeStake", { netuid, hotkey: address, amountRao }),
  named("serveAxon", {
    netuid,
    version: z.number().int().min(0).max(0xffff_ffff),
    host: z.string().min(1).max(64),
    port: u16,
    protocol: z.number().int().min(0).max(255),
  }),
  named("setCommitment", { netuid, fields: z.array(field).max(FIELDS_LIMIT) }),
  named("setWeights", { netuid, uids: vector, weights: vector, versionKey }),
  named("commitWeights", { netuid, commitHash: z.string().regex(/^[0-9a-f]{64}$/) }),
  named("revealWeights", { netuid, uids: vector, values: vector, salt: vector, versionKey }),
  named("commitTimelockedWeights", {
    netuid,
    uids: vector,
    values: vector,
    versionKey,
    revealRound: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
    commitRevealVersion: u16,
  }),
  named("startCall", { netuid }),
  named("setTempo", { netuid, tempo: z.number().int().min(0).max(0xffff_ffff) }),
  named("triggerEpoch", { netuid }),
  named("setHyperparameters", { netuid, changes }),
  named("sudoSetSubtokenEnabled", { netuid, enabled: z.boolean() }),
  named("sudoSetSubnetEmissionEnabled", { netuid, enabled: z.boolean() }),
]);

/** A call with its arguments. */
export type Call = z.output<typeof callSchema>;
/** Arguments of the named call. */
export type CallArguments<Name extends Call["name"]> = Extract<Call, { name: Name }>["args"];
