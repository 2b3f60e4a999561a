/** Codes of the ledger and its client. Alphabetical. */
import type { ErrorEntry } from "../entry.ts";
import { terminal, transient } from "../entry.ts";

/** Entries by code. */
export const LEDGER_CODES = {
  COV_LEDGER_ANSWER_INVALID: terminal(
    "internal",
    "The chain's answer is not one that this release understands",
    "Check that the URL is a ledger's and that both sides are of the same release.",
  ),
  COV_LEDGER_BLOCK_NOT_FINAL: transient(
    "out_of_range",
    "The block is not final yet",
    "Wait for the block first.",
  ),
  COV_LEDGER_CHAIN_CHANGED: terminal(
    "failed_precondition",
    "The chain is another one than before: other genesis, or a head that went back",
    "Point the process at the chain it was started for, or give it a fresh data directory.",
  ),
  COV_LEDGER_EXTRINSIC_INVALID: terminal(
    "invalid_argument",
    "The chain takes the extrinsic into no block: wrong nonce, signature, life span or shape",
    "Let one process at a time use a key, and check the arguments.",
  ),
  COV_LEDGER_LOG_CORRUPT: terminal(
    "data_loss",
    "The chain's log or hashes are damaged, or were written by a release with other rules",
    "Restore the ledger's data directory from a backup, or delete it to begin a new chain.",
  ),
  COV_LEDGER_LOG_UNWRITABLE: terminal(
    "data_loss",
    "The chain's log could not be written, so no further block can be made",
    "Check the disk, then start the ledger again; it goes on after its last durable block.",
  ),
  COV_LEDGER_POOL_FULL: transient(
    "resource_exhausted",
    "Too many extrinsics wait for a block",
    "Wait for the next blocks.",
  ),
  COV_LEDGER_RATE_LIMITED: transient(
    "resource_exhausted",
    "The chain's rules allow this again only after some blocks or in a later epoch",
    "Wait for the number of blocks that the subnet's rules name.",
  ),
  COV_LEDGER_REJECTED: terminal(
    "failed_precondition",
    "The chain refused the call by one of its rules; metadata.name has the rule",
    "Look the name up in the ledger reference and correct what it says.",
  ),
  COV_LEDGER_UNAVAILABLE: transient(
    "unavailable",
    "The ledger cannot be reached",
    "Check that the ledger process runs and that ledger.url is its address.",
  ),
} as const satisfies Record<string, ErrorEntry>;
