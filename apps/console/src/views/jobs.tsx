// What runs where, and its log.

import { JobState, TaskState } from "@covenant/contracts/basilica";
import { signal } from "@preact/signals";
import { scheduler } from "../data/clients.ts";
import { jobs } from "../data/store.ts";
import { bytesText, Empty } from "../parts/figures.tsx";

const nameOf = (states: Record<string, number | string>, value: number) =>
  Object.entries(states)
    .find(([, number]) => number === value)?.[0]
    .toLowerCase()
    .replaceAll("_", " ") ?? "unknown";

const log = signal<{ title: string; lines: string[] } | undefined>(undefined);

async function showLog(jobId: string, task: string) {
  const lines: string[] = [];
  log.value = { title: task, lines };
  for await (const { line } of scheduler.streamLogs({
    jobId,
    task,
    tailLines: 100,
    follow: false,
  })) {
    lines.push(line);
  }
  log.value = { title: task, lines };
}

function openLog(jobId: string, task: string) {
  showLog(jobId, task).catch((error: unknown) => {
    log.value = { title: task, lines: [`The log cannot be read: ${String(error)}`] };
  });
}

export function Jobs() {
  if (jobs.value.size === 0) return <Empty>No job has been submitted.</Empty>;
  return (
    <>
      {[...jobs.value.values()].map((job) => (
        <section key={job.id}>
          <h2>
            {job.spec?.name}{" "}
            <span class={job.state === JobState.FAILED ? "tag failed" : "tag"}>
              {nameOf(JobState, job.state)}
            </span>
          </h2>
          <p class="quiet">{job.reason}</p>
          <div class="scroll">
            <table>
              <thead>
                <tr>
                  <th scope="col">Task</th>
                  <th scope="col">State</th>
                  <th scope="col">Node</th>
                  <th scope="col">Restarts</th>
                  <th scope="col">Peak memory</th>
                  <th scope="col">Why</th>
                  <th scope="col">Log</th>
                </tr>
              </thead>
              <tbody>
                {job.tasks.map((task) => (
                  <tr key={task.name}>
                    <td>{task.name}</td>
                    <td>{nameOf(TaskState, task.state)}</td>
                    <td>{task.nodeId}</td>
                    <td class="number">{task.restarts}</td>
                    <td class="number">
                      {task.peakRssBytes > 0n ? bytesText(Number(task.peakRssBytes)) : "—"}
                    </td>
                    <td>{task.reason}</td>
                    <td>
                      <button type="button" onClick={() => openLog(job.id, task.name)}>
                        show
                      </button>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </section>
      ))}
      {log.value && (
        <section>
          <h2>Log of {log.value.title}</h2>
          <pre>{log.value.lines.join("\n")}</pre>
        </section>
      )}
    </>
  );
}
