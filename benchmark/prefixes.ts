/**
 * What it costs to know a prompt by its content: `npm run -s bench -- prefixes`, or with `--rounds N` (40).
 *
 * Bodies as coding agents send them, of 4, 100 and 400 KB, are decoded, parsed and sized; then the same with their prefixes; then also
 * with what a call asks the memory of conversations and tells it. It also prints what a call in flight and 10,000 remembered prefixes take.
 */
import { isUtf8 } from "node:buffer"
import { parseArgs } from "node:util"
import { type Description, protocols } from "floodgate/protocol"
import { Conversations } from "../src/call/conversations.ts"
import { read } from "../src/call/reported.ts"
import { add, addSchema, newSum } from "../src/protocol/requestSize.ts"
import * as Bodies from "./support/bodies.ts"
import { inTurns, resultsOf, timed } from "./support/inTurns.ts"

type Prefixes = NonNullable<Description["prefixes"]>

const { anthropic } = protocols

const { values: options } = parseArgs({ options: { rounds: { type: "string", default: "40" } } })
const rounds = Number(options.rounds)
const bodyOf = (size: number): object => ({ model: "claude-opus-5", ...Bodies.bodyOf(size) })
const gc = (globalThis as { gc?: () => void }).gc ?? (() => {})

// -----------------------------------------------------------------------------
// Time
// -----------------------------------------------------------------------------

const route = anthropic.match("POST", "/v1/messages")!
const parsed = (raw: Buffer): Readonly<Record<string, unknown>> => {
  if (!isUtf8(raw)) throw new Error("not a text")
  return JSON.parse(raw.toString()) as Readonly<Record<string, unknown>>
}
const sized = (raw: Buffer): number => {
  const body = parsed(raw)
  const sum = newSum()
  add(sum, body["system"])
  add(sum, body["messages"])
  addSchema(sum, body["tools"])
  return sum.text
}
const prefixesOf = (raw: Buffer): Prefixes => anthropic.describe(parsed(raw), route)!.prefixes!

const memory = new Conversations()
let now = 0
const remembered = (raw: Buffer): void => {
  const prefixes = prefixesOf(raw)
  const lookup = { scope: "pool", prefixes, continues: undefined }
  memory.again(undefined, lookup, ++now)
  const actual = { inputTokens: 3, cacheCreationTokens: 500, cacheReadTokens: 30_000, outputTokens: 500 }
  memory.began(lookup, read(actual), now, now)
}

const ways: Readonly<Record<string, (raw: Buffer) => unknown>> = {
  "decoded, parsed, sized": sized,
  "the same again": sized,
  "and prefixes": prefixesOf,
  "and remembered": remembered
}

for (const kilobytes of [4, 100, 400]) {
  const raws = Array.from({ length: 8 }, () => Buffer.from(JSON.stringify(bodyOf(kilobytes * 1_000))))
  const calls = Math.ceil(20_000 / kilobytes / 8) * 8
  const contenders = Object.entries(ways).map(([name, way]) => ({
    name,
    turn: () =>
      timed(calls, () => {
        for (let n = 0; n < calls; n++) way(raws[n % 8]!)
      })
  }))
  const parts = prefixesOf(raws[0]!).fingerprints.length
  const title = `${kilobytes} KB (${raws[0]!.length} bytes, ${parts} prefixes)`
  console.log(`\n${resultsOf(title, "call", await inTurns(contenders, { rounds, warmups: 5 }))}`)
}

// -----------------------------------------------------------------------------
// Memory
// -----------------------------------------------------------------------------

const used = (): number => {
  gc()
  gc()
  return process.memoryUsage().heapUsed
}

const body = Buffer.from(JSON.stringify(bodyOf(400_000)))
const start = used()
const held = Array.from({ length: 200 }, () => prefixesOf(body))
console.log(`\na call of 400 KB in flight holds ${((used() - start) / held.length / 1_024).toFixed(1)} KB of prefixes`)

const many = new Conversations()
const from = used()
let prefixes = 0
for (let n = 0; prefixes < 10_000; n++) {
  const fingerprints = Array.from({ length: 20 }, (_, index) => n * 2 ** 21 + index)
  const lookup = {
    scope: "pool",
    continues: undefined,
    prefixes: {
      fingerprints,
      bytes: fingerprints.map((_, index) => 1_000 * (index + 1)),
      shared: 2,
      marks: [{ index: 19, life: 300_000 }],
      automatic: undefined
    }
  }
  many.began(lookup, read({ inputTokens: 3, cacheCreationTokens: 7_000, outputTokens: 5 }), n, n + 0.5)
  prefixes += fingerprints.length
}
console.log(`10,000 remembered prefixes of 500 conversations take ${((used() - from) / 2 ** 20).toFixed(2)} MB`)
if (held.length + many.changes === 0) throw new Error("nothing was kept")
