// `covenant verify`: does this receipt prove what it says?
import { fromBinary } from "@bufbuild/protobuf";
import { type Receipt, ReceiptSchema } from "@covenant/contracts/grail";
import { CovenantError, readFileLimited } from "@covenant/runtime";
import type { Command } from "commander";
import { fetchCheckpoint } from "../fetch-checkpoint.ts";
import { checkReceipt } from "../verify-receipt.ts";

const receiptBytesMax = 4 << 20;
const exitNotVerified = 2;

interface VerifyFlags {
  data: string;
  hotkey?: string;
  json: boolean;
}

export function addVerifyCommand(program: Command): void {
  program
    .command("verify")
    .description(
      "Check a receipt: fetch the checkpoint it names from the mesh's registry, replay the completion, compare.",
    )
    .argument("<receipt>", "receipt file, binary protobuf (covenant.grail.v1.Receipt)")
    .option("--data <directory>", "data directory of the mesh", ".covenant/mesh")
    .option("--hotkey <address>", "accept only receipts that this hotkey signed")
    .option("--json", "print the outcome as JSON", false)
    .action(async (file: string, flags: VerifyFlags) => {
      process.exitCode = await verify(file, flags);
    });
}

async function verify(file: string, flags: VerifyFlags): Promise<number> {
  const receipt = await readReceipt(file);
  const root = receipt.commitment?.statement?.checkpointRoot ?? new Uint8Array();
  const checkpoint = await fetchCheckpoint(flags.data, root);
  const check = await checkReceipt(receipt, checkpoint, flags.hotkey);
  if (flags.json) process.stdout.write(`${JSON.stringify(check)}\n`);
  else {
    process.stdout.write(
      `${check.verified ? "Verified" : `Not verified (${check.reason})`}: ${check.explanation}\n` +
        `Model ${receipt.model}, checkpoint ${Buffer.from(root).toString("hex")}, signed by ${receipt.signature?.hotkey}.\n`,
    );
  }
  return check.verified ? 0 : exitNotVerified;
}

async function readReceipt(file: string): Promise<Receipt> {
  const bytes = await readFileLimited(file, receiptBytesMax);
  try {
    const receipt = fromBinary(ReceiptSchema, bytes);
    if (receipt.commitment?.statement) return receipt;
  } catch {
    // Not protobuf at all: the same message serves.
  }
  throw new CovenantError("COV_RECEIPT_MALFORMED", `${file} is not a receipt.`, {
    remedy: "Give the file that /v1/receipts/… returned with Accept: application/x-protobuf.",
  });
}
