/** Bounds of everything that a stranger can send. A message beyond one of them is malformed. */

/** Completions of one group. */
export const groupSizeMax = 64;
/** Groups that one contract hands out. */
export const groupsPerContractMax = 4096;
/** Tokens of one prompt. */
export const promptTokensMax = 32_768;
/** Tokens of one completion. */
export const completionTokensMax = 32_768;
/** Values of one fingerprint. */
export const fingerprintDimsMax = 64;
/** Length of ids, in characters. */
export const idLengthMax = 128;
/** Stop tokens of one contract. */
export const stopTokensMax = 16;
/** Depth of a Merkle path: enough for `completionTokensMax` leaves. */
export const merklePathMax = 16;
