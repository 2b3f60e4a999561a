/** What a settled round leaves: the merged update and the parameters it leads to. */
export type Outcome = { merged: Uint8Array; parameters: Float32Array };
