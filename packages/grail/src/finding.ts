import { type ProofMeasurements, ProofReason } from "@covenant/contracts/grail";

/** Outcome of a check of one completion. */
export interface Finding {
  reason: ProofReason;
  /** One sentence for people, with the numbers that decided. */
  explanation: string;
  measurements?: ProofMeasurements;
}

/** A refusal. */
export function refuse(reason: ProofReason, explanation: string): Finding {
  return { reason, explanation };
}

/** Whether a finding says that the claim was proven. */
export function isVerified(finding: Finding): boolean {
  return finding.reason === ProofReason.VERIFIED;
}

const names = new Map<number, string>(
  Object.entries(ProofReason).map(([name, value]) => [value, name.toLowerCase()]),
);

/** Name of a reason as reports and metrics carry it: "sampling_mismatch". */
export function reasonName(reason: number): string {
  return names.get(reason) ?? "unspecified";
}
