/** Test support: a small service, run as a process of its own by the life-cycle tests. */
import { z } from "zod";
import { CovenantError } from "../errors/covenant-error.ts";
import { runService } from "./run-service.ts";

const schema = z.strictObject({
  dataDirectory: z.string().optional(),
  behaviour: z
    .enum(["wait", "finish", "throw", "refuse", "reject", "crash", "hang"])
    .default("wait")
    .describe("What the probe does once it runs"),
});

await runService({
  name: "probe",
  schema,
  start: async ({ config, logger, signal }) => {
    const { behaviour } = config;
    if (behaviour === "throw") throw new TypeError("a fault");
    if (behaviour === "refuse") throw new CovenantError("COV_DISK_FULL", "No space left");
    if (behaviour === "reject") setImmediate(() => void Promise.reject(new Error("nobody waits")));
    if (behaviour === "crash") {
      setImmediate(() => {
        throw new Error("out of the blue");
      });
    }
    signal.addEventListener("abort", () => logger.info("Signal seen"));
    // Keeps the process alive as a listening port would.
    const alive = setInterval(() => undefined, 1000);
    return {
      endpoint: "127.0.0.1:1",
      ...(behaviour === "finish" && { finished: Promise.resolve() }),
      drain: async () => {
        if (behaviour === "hang") await new Promise(() => undefined);
        clearInterval(alive);
        logger.info("Drained");
      },
    };
  },
});
