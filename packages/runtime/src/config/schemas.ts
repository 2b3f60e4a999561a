/** Pieces of configuration that every service shares. */
import { z } from "zod";

/** Certificate files of a process; paths are relative to the working directory. */
export const tlsSchema = z
  .strictObject({
    certFile: z.string().min(1).describe("Certificate of this process, PEM"),
    keyFile: z.string().min(1).describe("Its private key, PEM"),
    caFile: z.string().min(1).describe("Certificate of the authority that signs the mesh, PEM"),
  })
  .describe("TLS identity");

/** Where a server listens. */
export const listenSchema = z
  .strictObject({
    host: z.string().min(1).default("127.0.0.1").describe("Address to listen on"),
    port: z.int().min(0).max(65_535).default(0).describe("TCP port; 0 picks a free one"),
  })
  .prefault({})
  .describe("Where the server listens");

/** Paths of a TLS identity. */
export type TlsFiles = z.output<typeof tlsSchema>;
/** Address of a listener. */
export type Listen = z.output<typeof listenSchema>;
