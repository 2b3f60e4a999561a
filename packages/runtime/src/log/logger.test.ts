import assert from "node:assert/strict";
import { test } from "node:test";
import { CovenantError } from "../errors/covenant-error.ts";
import { startTelemetry } from "../telemetry/provider.ts";
import { currentTraceId, withSpan } from "../telemetry/spans.ts";
import { recordingLogger } from "../testing.ts";

test("a line carries service, level, time and the trace it belongs to", async (t) => {
  const telemetry = await startTelemetry("test", {});
  t.after(() => telemetry.shutdown());
  const { logger, lines } = recordingLogger();
  logger.info({ round: 3 }, "outside");
  const traceId = await withSpan("work", {}, () => {
    logger.warn("inside");
    return currentTraceId();
  });
  const [outside, inside] = lines;
  assert.deepEqual([outside?.service, outside?.level, outside?.round], ["test", "info", 3]);
  assert.match(String(outside?.time), /^\d{4}-\d\d-\d\dT.*Z$/);
  assert.equal(outside?.traceId, undefined);
  assert.deepEqual([inside?.msg, inside?.traceId], ["inside", traceId]);
});

test("secrets are hidden; errors keep code, remedy and cause", () => {
  const { logger, lines } = recordingLogger();
  const cause = new Error("the deeper reason");
  const error = new CovenantError("COV_DISK_FULL", "No space", { cause });
  logger.error({ token: "abc", request: { token: "def" }, error }, "failed");
  const text = JSON.stringify(lines);
  assert.ok(!text.includes("abc") && !text.includes("def"));
  assert.match(text, /COV_DISK_FULL/);
  assert.match(text, /the deeper reason/);
});
