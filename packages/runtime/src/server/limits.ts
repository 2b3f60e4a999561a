/** Named limits of every port; each can be changed in `createServer`'s options. */

/** Limits of a server. */
export interface ServerLimits {
  /** Largest single message, either direction, after decompression. */
  messageBytes: number;
  /** Deadline of a unary call whose client set none. */
  defaultDeadlineMs: number;
  /** Longest deadline of a unary call; longer ones are cut to it. */
  maxDeadlineMs: number;
  /** A stream on which no message moved for this long is ended. */
  streamIdleMs: number;
  /** The same while the server drains. */
  drainStreamIdleMs: number;
  /** Calls at once on one connection. */
  streamsPerConnection: number;
  /** Connections at once; further ones are refused. */
  connections: number;
  /** Time between liveness checks of a connection with open streams. */
  pingIntervalMs: number;
  /** Time for an answer to a liveness check. */
  pingTimeoutMs: number;
  /** Receive window of a stream and, times eight, of a connection. */
  windowBytes: number;
  /**
   * Memory of one connection, MiB: what it holds unread and unsent. Beyond it new calls are refused, so it is well
   * above the windows and a few bulk messages.
   */
  connectionMemoryMiB: number;
}

/** Limits unless told otherwise. */
export const DEFAULT_LIMITS: ServerLimits = {
  messageBytes: 16 * 1024 * 1024,
  defaultDeadlineMs: 30_000,
  maxDeadlineMs: 600_000,
  streamIdleMs: 1_800_000,
  drainStreamIdleMs: 500,
  streamsPerConnection: 256,
  connections: 1024,
  pingIntervalMs: 30_000,
  pingTimeoutMs: 15_000,
  windowBytes: 1024 * 1024,
  connectionMemoryMiB: 128,
};
