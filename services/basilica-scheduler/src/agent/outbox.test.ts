import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { ConnectRequest } from "@covenant/contracts/basilica";
import { LogLinesSchema, MeterSampleSchema, TaskEventSchema } from "@covenant/contracts/basilica";
import fc from "fast-check";
import { Outbox } from "./outbox.ts";

function open(itemsMax: number): Outbox {
  let sequence = 0;
  return new Outbox(
    { itemsMax },
    {
      nextSequence: () => {
        sequence += 1;
        return sequence;
      },
    },
  );
}

function log(outbox: Outbox, line: string): void {
  const value = create(LogLinesSchema, { jobId: "j", task: "t", lines: [line] });
  outbox.add({ case: "logs", value });
}

function meter(outbox: Outbox, task: string, at: number, cpuMicros: bigint): void {
  const span = { fromMs: BigInt(at), toMs: BigInt(at + 1) };
  outbox.add({
    case: "meter",
    value: create(MeterSampleSchema, { jobId: "j", task, cpuMicros, ...span }),
  });
}

/** Reads what is there to send now. */
async function drain(outbox: Outbox): Promise<ConnectRequest[]> {
  const over = new AbortController();
  const sent: ConnectRequest[] = [];
  setImmediate(() => over.abort());
  for await (const request of outbox.stream(over.signal)) sent.push(request);
  return sent;
}

test("a new stream begins with everything that is not acknowledged", async () => {
  const outbox = open(100);
  for (const line of ["a", "b", "c"]) log(outbox, line);
  assert.equal((await drain(outbox)).length, 3);
  outbox.acknowledge(2);
  const again = await drain(outbox);
  assert.deepEqual(
    again.map(({ event }) =>
      event.case === "logs" ? [event.value.lines[0], event.value.sequence] : [],
    ),
    [["c", 3n]],
  );
});

test("acknowledging returns the task events among what is forgotten", () => {
  const outbox = open(100);
  log(outbox, "a");
  outbox.add({
    case: "task",
    value: create(TaskEventSchema, { jobId: "j", task: "t", attempt: 3 }),
  });
  log(outbox, "b");
  assert.deepEqual(
    outbox.acknowledge(2).map((event) => event.attempt),
    [3],
  );
  assert.equal(outbox.size, 1);
});

test("a full outbox drops the oldest lines first and says how many with the next ones", async () => {
  const outbox = open(3);
  outbox.add({ case: "task", value: create(TaskEventSchema, { jobId: "j", task: "t" }) });
  for (const line of ["a", "b", "c", "d"]) log(outbox, line);
  log(outbox, "e");
  const sent = await drain(outbox);
  assert.equal(sent.length, 3);
  assert.equal(sent[0]?.event.case, "task");
  const dropped = sent.reduce(
    (sum, { event }) => sum + (event.case === "logs" ? Number(event.value.droppedLines) : 0),
    0,
  );
  // The third loss came after the last line was queued; the next line will tell it.
  assert.equal(dropped, 2);
});

test("however full it gets, no metered amount is lost and tasks are not mixed", async () => {
  const samples = fc.array(fc.record({ task: fc.constantFrom("a", "b"), cpu: fc.nat(1000) }), {
    minLength: 1,
    maxLength: 60,
  });
  await fc.assert(
    fc.asyncProperty(samples, async (list) => {
      const outbox = open(4);
      for (const [at, { task, cpu }] of list.entries()) meter(outbox, task, at, BigInt(cpu));
      const sums = { a: 0, b: 0 };
      for (const { event } of await drain(outbox)) {
        if (event.case === "meter")
          sums[event.value.task as "a" | "b"] += Number(event.value.cpuMicros);
      }
      for (const name of ["a", "b"] as const) {
        const expected = list
          .filter(({ task }) => task === name)
          .reduce((sum, { cpu }) => sum + cpu, 0);
        assert.equal(sums[name], expected);
      }
      assert.ok(outbox.size <= 5);
    }),
  );
});

test("a sample that was sent is never joined with a later one: it may have been counted", async () => {
  const outbox = open(2);
  meter(outbox, "a", 0, 5n);
  await drain(outbox);
  meter(outbox, "a", 1, 7n);
  meter(outbox, "a", 2, 9n);
  const sent = await drain(outbox);
  assert.deepEqual(
    sent.map(({ event }) =>
      event.case === "meter" ? [event.value.sequence, event.value.cpuMicros] : [],
    ),
    [
      [1n, 5n],
      [3n, 16n],
    ],
  );
});
