import { AggregationRule } from "@covenant/contracts/templar";

/** covenant.sparse.v1 with sign and one of two magnitudes per kept value. */
export const CODEC_2BIT = "covenant.sparse.v1";
/** covenant.sparse.v1 with the sign only. */
export const CODEC_1BIT = "covenant.sparse.v1/1bit";

/** How the kernels name the value code of a codec. */
export function codecMode(codec: string): "2bit" | "1bit" {
  if (codec === CODEC_2BIT) return "2bit";
  if (codec === CODEC_1BIT) return "1bit";
  throw new RangeError(`unknown codec ${codec}`);
}

/** Part of the protocol: before aggregation every tensor of an update is clipped to the median norm of the round's updates. */
export const CLIP_TO_MEDIAN_NORM = true;

/** How the kernels name an aggregation rule. */
export function ruleName(rule: AggregationRule): "contributors" | "all" {
  if (rule === AggregationRule.CONTRIBUTORS) return "contributors";
  if (rule === AggregationRule.ALL) return "all";
  throw new RangeError(`unknown aggregation rule ${rule}`);
}
