/** Test support: an own authority, real TLS servers on free ports, clients, all cleaned up after. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { DescService } from "@bufbuild/protobuf";
import type { Client, ConnectRouter } from "@connectrpc/connect";
import type { ClientOptions } from "./client/client.ts";
import { createChannel } from "./client/client.ts";
import type { TlsFiles } from "./config/schemas.ts";
import type { Logger } from "./log/logger.ts";
import { createLogger } from "./log/logger.ts";
import { createDevelopmentCa, issueCertificate } from "./pki/pki.ts";
import type { ServerModules, ServerOptions } from "./server/server.ts";
import { createServer } from "./server/server.ts";
import { systemClock } from "./time/clock.ts";

/** A directory that is removed after the test. */
export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "covenant-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A logger whose lines can be read back. */
export function recordingLogger(): { logger: Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  return { logger: createLogger({ service: "test", level: "trace", destination }), lines };
}

/** An authority of its own and servers and clients under it. */
export class TestMesh {
  readonly #t: TestContext;
  readonly directory: string;
  readonly #certificates = new Map<string, Promise<TlsFiles>>();

  private constructor(t: TestContext, directory: string) {
    this.#t = t;
    this.directory = directory;
  }

  /** Makes the authority. */
  static async create(t: TestContext): Promise<TestMesh> {
    const directory = await temporaryDirectory(t);
    await createDevelopmentCa(directory);
    return new TestMesh(t, directory);
  }

  /** Certificate of that name, issued at most once. */
  certificate(name: string): Promise<TlsFiles> {
    const known = this.#certificates.get(name) ?? issueCertificate(this.directory, name);
    this.#certificates.set(name, known);
    return known;
  }

  /** Starts a server; drained after the test. */
  async serve(
    routes: (router: ConnectRouter) => void,
    options: Partial<ServerOptions> = {},
    modules: Partial<ServerModules> = {},
  ) {
    const name = options.name ?? "gauntlet-validator";
    const { logger, lines } = recordingLogger();
    const tls = await this.certificate(name);
    const listen = { host: "127.0.0.1", port: 0 };
    const server = createServer(
      { name, listen, tls, ...options },
      { logger, clock: systemClock, ...modules },
    );
    server.route(routes);
    const { port } = await server.start();
    this.#t.after(() => server.drain(0));
    return { server, port, url: `https://127.0.0.1:${port}`, caFile: tls.caFile, lines };
  }

  /** A client; its connection is cut after the test. Without identity unless one is given. */
  async client<Desc extends DescService>(
    service: Desc,
    url: string,
    identity: Omit<ClientOptions, "url"> & { name?: string } = {},
  ): Promise<Client<Desc>> {
    const { name, ...rest } = identity;
    const { caFile } = await this.certificate(name ?? "gauntlet-validator");
    const tls = name ? { tls: await this.certificate(name) } : {};
    const channel = createChannel({ url, caFile, ...tls, ...rest });
    this.#t.after(() => channel.close());
    return channel.client(service);
  }
}
