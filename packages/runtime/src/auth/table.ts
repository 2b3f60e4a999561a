/**
 * Who may call what. A method that is not here may be called by nobody. Roles:
 * "anyone" without identity; "participant" any registered or unregistered hotkey with a token;
 * "operator" the operator's own certificate (CLI); "console" the console's certificate (reads only);
 * "service:<name>" another service of the same operator, by the name in its certificate.
 */

/** A role that the table grants to. */
export type Role = "anyone" | "participant" | "operator" | "console" | `service:${string}`;

const ANYONE: readonly Role[] = ["anyone"];
const OPERATOR: readonly Role[] = ["operator"];
const PARTICIPANT: readonly Role[] = ["participant"];
/** People of the operator: look, but participants have no business here. */
const OVERSIGHT: readonly Role[] = ["operator", "console"];
/** What is public within the mesh. */
const MESH: readonly Role[] = [
  "participant",
  "operator",
  "console",
  "service:basilica-scheduler",
  "service:checkpoint-registry",
  "service:gauntlet-validator",
  "service:grail-rl",
  "service:templar-trainer",
];
/** Who makes checkpoints. */
const CHECKPOINT_WRITERS: readonly Role[] = [
  "participant",
  "operator",
  "service:gauntlet-validator",
  "service:grail-rl",
  "service:templar-trainer",
];

/** Methods of each service and the roles that may call them. */
const SERVICES: Record<string, Record<string, readonly Role[]>> = {
  "covenant.basilica.v1.Agents": { Connect: PARTICIPANT },
  "covenant.basilica.v1.Billing": { GetUsage: OVERSIGHT },
  "covenant.basilica.v1.Inference": {
    Complete: MESH,
    GetReceipt: MESH,
    ListModels: MESH,
    VerifyReceipt: MESH,
  },
  "covenant.basilica.v1.Scheduler": {
    CancelJob: OPERATOR,
    GetJob: OVERSIGHT,
    ListJobs: OVERSIGHT,
    ListNodes: OVERSIGHT,
    StreamLogs: OVERSIGHT,
    SubmitJob: OPERATOR,
    WatchJobs: OVERSIGHT,
  },
  "covenant.common.v1.Identity": { ExchangeToken: ANYONE, IssueChallenge: ANYONE },
  "covenant.common.v1.Telemetry": { GetTrace: OVERSIGHT, ListTraces: OVERSIGHT },
  "covenant.gauntlet.v1.Validator": {
    AnnounceUpdate: PARTICIPANT,
    ExplainScore: MESH,
    GetMergedUpdate: MESH,
    GetRound: MESH,
    GetRun: MESH,
    GetScorecard: MESH,
    GetWeights: MESH,
    ReportApplied: PARTICIPANT,
    SignManifest: PARTICIPANT,
    WatchRounds: MESH,
  },
  "covenant.grail.v1.PostTraining": {
    Evaluate: OPERATOR,
    StartPostTraining: OPERATOR,
    WatchPostTraining: MESH,
  },
  "covenant.grail.v1.Rollouts": {
    CommitGroup: PARTICIPANT,
    GetContract: PARTICIPANT,
    GetVerdict: MESH,
    SubmitGroups: PARTICIPANT,
    WatchPolicy: MESH,
  },
  "covenant.registry.v1.CheckpointRegistry": {
    BeginUpload: CHECKPOINT_WRITERS,
    CommitCheckpoint: CHECKPOINT_WRITERS,
    GetManifest: MESH,
    ListCheckpoints: MESH,
    Pin: OPERATOR,
    Prune: OPERATOR,
    PutChunks: CHECKPOINT_WRITERS,
    StreamCheckpoint: MESH,
    Verify: OPERATOR,
    WatchCheckpoints: MESH,
  },
  "covenant.templar.v1.Trainer": {
    Drain: OPERATOR,
    GetStatus: OVERSIGHT,
    GetUpdate: ["participant", "operator", "service:gauntlet-validator"],
    Pause: OPERATOR,
    Resume: OPERATOR,
    WatchProgress: OVERSIGHT,
  },
  "grpc.health.v1.Health": { Check: ANYONE, Watch: ANYONE },
  "grpc.reflection.v1.ServerReflection": { ServerReflectionInfo: ANYONE },
};

/** Allowed roles by "package.Service/Method". */
export const AUTHORISATION_TABLE: ReadonlyMap<string, readonly Role[]> = new Map(
  Object.entries(SERVICES).flatMap(([service, methods]) =>
    Object.entries(methods).map(([method, roles]) => [`${service}/${method}`, roles] as const),
  ),
);

/** True when one of `roles` may call the method; false for methods that are not in the table. */
export function isAllowed(method: string, roles: readonly string[]): boolean {
  const allowed = AUTHORISATION_TABLE.get(method) ?? [];
  return allowed.includes("anyone") || allowed.some((role) => roles.includes(role));
}
