// A workload of the tests: does what its configuration says. Plain JavaScript without imports of the
// project, so that it starts fast.
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";

const config = JSON.parse(readFileSync(process.argv[process.argv.indexOf("--config") + 1], "utf8"));
const say = (line) => process.stdout.write(`${line}\n`);

/** Every start leaves a line, so that tests can count them. */
if (config.startsFile) appendFileSync(config.startsFile, `${process.pid}\n`);
if (config.print) say(config.print);
for (let i = 0; i < (config.lines ?? 0); i += 1) say(`line ${i}`);
if (config.error) process.stderr.write(`${config.error}\n`);
if (config.ignoreTerm) process.on("SIGTERM", () => say("not now"));
else process.on("SIGTERM", () => process.exit(config.termCode ?? 0));
if (config.endpoint) {
  writeFileSync(process.env.COVENANT_READY_FILE, JSON.stringify({ endpoint: config.endpoint }));
}
/** Exits at once: always, or only until the marker of an earlier start exists. */
if (config.exitCode !== undefined) process.exit(config.exitCode);
if (config.crashOnce && !existsSync(config.crashOnce)) {
  writeFileSync(config.crashOnce, "");
  process.exit(3);
}
if (config.burnMs) {
  while (process.cpuUsage().user < config.burnMs * 1_000);
  say("burnt");
}
if (config.exitWhen) {
  setInterval(() => {
    if (existsSync(config.exitWhen)) process.exit(0);
  }, 50);
} else if (!config.exitNow) {
  setInterval(() => undefined, 1_000);
}
