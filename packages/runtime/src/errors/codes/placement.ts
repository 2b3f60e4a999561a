/** Codes of jobs, nodes and the local mesh. Alphabetical. */
import type { ErrorEntry } from "../entry.ts";
import { terminal, transient } from "../entry.ts";

/** Entries by code. */
export const PLACEMENT_CODES = {
  COV_BUSY: transient(
    "resource_exhausted",
    "As many requests as allowed are waiting",
    "Try again after a moment; the error says when where it is known.",
  ),
  COV_JOB_FAILED: terminal(
    "failed_precondition",
    "A job that the run needs has failed",
    "Read the logs of its tasks; a second start tries again.",
  ),
  COV_JOB_INFEASIBLE: terminal(
    "failed_precondition",
    "No enrolled node, or all of them together, could ever run the job",
    "Ask for less, or enrol a node that offers what the message names.",
  ),
  COV_JOB_NAME_TAKEN: terminal(
    "already_exists",
    "A job of that name has not ended yet",
    "Choose another name, or cancel the other job.",
  ),
  COV_MESH_NOT_FOUND: terminal(
    "not_found",
    "There is no mesh in the directory",
    "Start one with npm start, or name its directory with --data.",
  ),
  COV_NODE_NAME_TAKEN: terminal(
    "permission_denied",
    "The name of the node is bound to another hotkey",
    "Use the hotkey that enrolled the node, or another nodeId.",
  ),
  COV_PROCESS_FAILED: terminal(
    "failed_precondition",
    "A process of the mesh cannot be kept running",
    "Read its log; a second start resumes.",
  ),
  COV_SERVING_FAILED: transient(
    "unavailable",
    "The served model could not be asked",
    "Read the log of the replica.",
  ),
} as const satisfies Record<string, ErrorEntry>;
