import { type Hotkey, hotkeyFromSeed, sha256 } from "@covenant/contracts";
import { type AppliedBlock, applyBlock } from "./apply.ts";
import type { Call } from "./calls.ts";
import { type Extrinsic, signExtrinsic } from "./extrinsic.ts";
import { type GenesisInput, genesisSchema, genesisState } from "./genesis.ts";
import type { Hyperparameters } from "./hyperparameters.ts";
import type { ChainState } from "./types.ts";

/** A chain inside a test: blocks on demand, nonces counted, no process and no disk. */
export class TestChain {
  state: ChainState;
  /** What the last block brought. */
  last: AppliedBlock | undefined;
  readonly inputs: { timeMs: number; entropy: string; extrinsics: Extrinsic[] }[] = [];

  constructor(genesis: GenesisInput) {
    this.state = genesisState(genesisSchema.parse(genesis));
  }

  /** The next extrinsic of a signer, `ahead` of those already in blocks. */
  sign(signer: Hotkey, call: Call, ahead = 0): Extrinsic {
    const nonce = (this.state.accounts.get(signer.address)?.nonce ?? 0) + ahead;
    const { genesisHash, head } = this.state;
    const options = {
      call,
      nonce,
      birthBlock: head.number,
      periodBlocks: 64,
      salt: "00".repeat(8),
      genesisHash,
    };
    return signExtrinsic(options, signer);
  }

  /** Makes one block of these extrinsics, 250 ms after the last. */
  block(extrinsics: Extrinsic[] = []): AppliedBlock {
    const timeMs = this.state.head.timeMs + 250;
    const input = { timeMs, entropy: "00".repeat(32), extrinsics };
    this.inputs.push(input);
    this.last = applyBlock(this.state, input);
    this.state = this.last.state;
    return this.last;
  }

  /** Makes empty blocks. */
  blocks(count: number): void {
    for (let made = 0; made < count; made++) this.block();
  }

  /** One call in one block; returns the name of its error, or undefined. */
  call(signer: Hotkey, call: Call): string | undefined {
    return this.block([this.sign(signer, call)]).receipts[0]!.error;
  }
}

/** A key that depends on nothing but its name. */
export function testKey(name: string): Hotkey {
  return hotkeyFromSeed(sha256(new TextEncoder().encode(`ledger test key ${name}`)));
}

/** TAO in rao. */
export function tao(amount: number): bigint {
  return BigInt(amount) * 1_000_000_000n;
}

/** Netuid of the subnet in `testGenesis`. */
export const TEST_NETUID = 7;

/** One subnet, three rich coldkeys ("alice", "bob", "owner"), and sudo. */
export function testGenesis(hyperparameters: Partial<Hyperparameters> = {}): GenesisInput {
  return {
    name: "ledger-test",
    sudo: testKey("sudo").address,
    balances: Object.fromEntries(
      ["alice", "bob", "owner"].map((name) => [testKey(name).address, 1_000_000]),
    ),
    subnets: [
      {
        netuid: TEST_NETUID,
        owner: testKey("owner").address,
        ownerHotkey: testKey("owner-hotkey").address,
        hyperparameters,
      },
    ],
  };
}
