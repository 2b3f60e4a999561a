import assert from "node:assert/strict";
import { test } from "node:test";
import { Telemetry } from "@covenant/contracts/common";
import { Validator } from "@covenant/contracts/gauntlet";
import { CheckpointRegistry } from "@covenant/contracts/registry";
import { CovenantError } from "../errors/covenant-error.ts";
import { TestMesh } from "../testing.ts";
import { startTelemetry } from "./provider.ts";
import { SpanStore } from "./span-store.ts";
import { currentTraceId, withSpan, withSpanOf } from "./spans.ts";

// OpenTelemetry is global to a process, so these tests run one after another.

test("one trace id crosses two hops, streams included, and the console can read it", async (t) => {
  const telemetry = await startTelemetry("test", {});
  t.after(() => telemetry.shutdown());
  const mesh = await TestMesh.create(t);
  const seen: (string | undefined)[] = [];
  const registry = await mesh.serve(
    (router) => {
      router.service(CheckpointRegistry, {
        getManifest: () => {
          seen.push(currentTraceId());
          return {};
        },
      });
    },
    { name: "checkpoint-registry" },
  );
  const second = await mesh.client(CheckpointRegistry, registry.url, { name: "grail-rl" });
  const { spans } = telemetry;
  const validator = await mesh.serve(
    (router) => {
      router.service(Validator, {
        async *watchRounds() {
          for (let i = 0; i < 2; i++) {
            seen.push(currentTraceId());
            await second.getManifest({});
            yield { round: { round: i } };
          }
        },
        getRound: () => {
          throw new CovenantError("COV_NOT_FOUND", "No such round");
        },
      });
    },
    {},
    { spans },
  );
  const client = await mesh.client(Validator, validator.url, { name: "operator" });
  const traceId = await withSpan("test", { "test.kind": "unit" }, async () => {
    for await (const _ of client.watchRounds({})) seen.push(currentTraceId());
    await assert.rejects(client.getRound({}));
    return currentTraceId()!;
  });
  assert.match(traceId, /^[0-9a-f]{32}$/);
  assert.deepEqual([...new Set(seen)], [traceId]);
  assert.equal(seen.length, 6);
  const reader = await mesh.client(Telemetry, validator.url, { name: "console" });
  const { spans: kept } = await reader.getTrace({ traceId });
  const byName = (name: string) => kept.filter((span) => span.name === name);
  const watch = "covenant.gauntlet.v1.Validator/WatchRounds";
  const manifest = "covenant.registry.v1.CheckpointRegistry/GetManifest";
  assert.deepEqual([byName("test").length, byName(watch).length], [1, 2]);
  assert.equal(byName(manifest).length, 4, "two calls, each with a client's and a server's span");
  const ids = new Set(kept.map(({ spanId }) => spanId));
  for (const span of kept) {
    assert.ok(
      span.parentSpanId === "" || ids.has(span.parentSpanId),
      `${span.name} has its parent`,
    );
  }
  const failed = byName("covenant.gauntlet.v1.Validator/GetRound");
  for (const span of failed) {
    assert.equal(span.attributes["error.type"], "COV_NOT_FOUND");
    assert.equal(span.attributes["rpc.response.status_code"], "NOT_FOUND");
    assert.match(span.error, /No such round/);
  }
  const { roots } = await reader.listTraces({ pageSize: 200 });
  assert.ok(roots.some((root) => root.traceId === traceId && root.name === "test"));
});

test("switched off, spans cost nothing and tell nothing", async (t) => {
  const telemetry = await startTelemetry("test", { OTEL_SDK_DISABLED: "true" });
  t.after(() => telemetry.shutdown());
  assert.equal(await withSpan("x", {}, () => currentTraceId()), undefined);
  assert.deepEqual(telemetry.spans.roots(10), []);
});

test("the store keeps the newest spans and pages through roots without gaps", async (t) => {
  const store = new SpanStore({ capacity: 4 });
  for (let i = 0; i < 6; i++) store.onEnd(spanNamed(`span-${i}`));
  const names = (spans: { name: string }[]) => spans.map(({ name }) => name);
  assert.deepEqual(names(store.roots(10)), ["span-5", "span-4", "span-3", "span-2"]);
  const mesh = await TestMesh.create(t);
  const { url } = await mesh.serve(() => undefined, {}, { spans: store });
  const reader = await mesh.client(Telemetry, url, { name: "operator" });
  const first = await reader.listTraces({ pageSize: 3 });
  assert.deepEqual(names(first.roots), ["span-5", "span-4", "span-3"]);
  const rest = await reader.listTraces({ pageSize: 3, pageToken: first.nextPageToken });
  assert.deepEqual(names(rest.roots), ["span-2"]);
  assert.equal(rest.nextPageToken, "");
  await assert.rejects(reader.listTraces({ pageToken: "nonsense" }), {
    code: "COV_INVALID_ARGUMENT",
  });
});

function spanNamed(name: string): Parameters<SpanStore["onEnd"]>[0] {
  return {
    name,
    spanContext: () => ({ traceId: "a".repeat(32), spanId: name, traceFlags: 1 }),
    startTime: [1, 2],
    duration: [0, 5],
    attributes: {},
    status: { code: 0 },
  } as unknown as Parameters<SpanStore["onEnd"]>[0];
}

test("work goes on under the trace id that it began with", async (t) => {
  const telemetry = await startTelemetry("test", {});
  t.after(() => telemetry.shutdown());
  const begun = await withSpan("begin", {}, () => currentTraceId()!);
  const later = await withSpanOf(begun, "go on", {}, () => currentTraceId());
  assert.equal(later, begun);
  const own = await withSpanOf("nonsense", "alone", {}, () => currentTraceId());
  assert.match(own ?? "", /^[0-9a-f]{32}$/);
  assert.notEqual(own, begun);
});
