/** The reference page of all error codes, made from the catalogue. */
import type { ErrorEntry } from "./catalogue.ts";
import { CATALOGUE } from "./catalogue.ts";

const INTRODUCTION = `# Error codes

Every error that leaves a process of the mesh has one of these codes, a message with the facts of the
occurrence, and a remedy. Programs match on the code; over the wire it stands in the
\`covenant.common.v1.ErrorDetail\` of the gRPC status. "Retry" says whether the same call may succeed later
without changes.

This page is generated: \`node packages/runtime/scripts/error-docs.ts\`.
`;

/** The page as Markdown. */
export function errorReference(): string {
  const codes = Object.entries<ErrorEntry>(CATALOGUE).sort(([a], [b]) => (a < b ? -1 : 1));
  return `${INTRODUCTION}\n${codes.map(section).join("\n")}`;
}

function section([code, { status, retryable, meaning, remedy }]: [string, ErrorEntry]): string {
  const retry = retryable ? "yes" : "no";
  return `## ${code}\n\n${meaning}.\n\n- Status: \`${status}\`; retry: ${retry}.\n- Remedy: ${remedy}\n`;
}
