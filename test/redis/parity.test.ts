/**
 * The pure step is the oracle of the script: the same random history, at the same times, gives the same decisions and the
 * same state to the last bit. The script under test reads its clock from a key; the store's own reads only the server's.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { createClient } from "redis"
import * as Ledger from "../../src/internal/ledger.ts"
import { observe } from "../../src/internal/observe.ts"
import { withClock } from "../../src/redis/scripts.ts"
import * as Wire from "../../src/redis/wire.ts"
import * as Limits from "floodgate/Limits"
import type { Blocked, PoolOptions } from "floodgate/BudgetStore"
import { mulberry } from "../support/random.ts"
import * as Redis from "./server.ts"

const script = withClock(`
local function clock() return tonumber(redis.call('GET', KEYS[1] .. ':clock')) end
`)

const prefix = Redis.fresh("parity")

const limitSets: ReadonlyArray<Limits.Limits> = [
  { tokens: { perSecond: 60_000, burst: 200_000 } },
  { requests: { perMinute: 1_000 }, inputTokens: { perMinute: 400_000 }, outputTokens: { perMinute: 80_000 } },
  { inputTokens: { perMinute: 400_000, window: "bucket" }, outputTokens: { perMinute: 90_000, window: "fixed" } },
  { requests: { perSecond: 7 }, tokens: { total: 3_000_000 } },
  {},
  { tokens: { perMinute: 123_457, burst: 1_003 }, requests: { perMinute: 61, window: "bucket" } }
]

/** Limits that nobody has, fractions, and numbers at which doubles grow coarse. */
const extremeSets: ReadonlyArray<Limits.Limits> = [
  { tokens: { perMinute: 1e12 }, requests: { perSecond: 0.001 } },
  { inputTokens: { perSecond: 1e-6, burst: 1e-3 }, outputTokens: { perMinute: 1e15, window: "bucket" } },
  { tokens: { total: 0.5 }, requests: { perMinute: 0.7, burst: 0.1 } },
  { tokens: { perMinute: 1e9 + 1 / 3, burst: 1 / 3, window: "sliding" } }
]

/** What no provider says of itself, but a header may. */
const nonsense = [0, -1, NaN, Infinity, -Infinity, 1e300, 1e-9, 1]

/** What the memory store does, with the bookkeeping of the shared probe. */
class Oracle {
  ledger: Ledger.Ledger
  readonly open = new Map<number, Ledger.Held>()
  readonly concurrency: number
  probe: { readonly since: number; round: number; allowed: number; open: number } | undefined
  /** When a call last went out or succeeded: one that is silent for a minute holds back nobody. */
  heardAt: number
  lastId: number
  /** The output that open calls have reserved. */
  openOutput = 0

  constructor(options: PoolOptions, now: number) {
    this.ledger = Ledger.make(options.limits, now, options)
    this.concurrency = options.concurrency
    this.heardAt = now
    this.lastId = Math.floor(now * 1_000)
  }
  advance(now: number): void {
    this.ledger = Ledger.advance(this.ledger, now)
  }
  roomIn(now: number): number {
    if (this.open.size >= this.concurrency) return 5_000
    const isFirst = Object.keys(this.ledger.buckets).length === 0 && this.open.size > 0
    const isProbed = this.probe !== undefined && this.probe.open >= this.probe.allowed
    return isFirst || isProbed ? Math.max(0, this.heardAt + 60_000 - now) : 0
  }
  take(charge: Limits.Charge, now: number): Ledger.Held | Blocked {
    const decision = Ledger.decide(this.ledger, charge, now)
    if (decision._tag === "Wait") return { ...decision, millis: Math.ceil(decision.millis) }
    if (decision._tag !== "Granted") return decision
    const room = this.roomIn(now)
    if (room > 0) return { _tag: "Wait", millis: Math.ceil(room), dimension: undefined }
    this.ledger = Ledger.take(this.ledger, charge, now)
    this.lastId = Math.max(this.lastId + 1, Math.floor(now * 1_000))
    const held = { id: this.lastId, charge, takenAt: now, left: Ledger.leftOf(this.ledger) }
    this.open.set(held.id, held)
    this.openOutput += charge.outputTokens ?? 0
    this.heardAt = now
    if (this.probe !== undefined) this.probe.open++
    return held
  }
  settle(held: Ledger.Held, used: Limits.Charge, succeeded: boolean, now: number): void {
    if (!this.open.delete(held.id)) return
    this.openOutput = this.open.size === 0 ? 0 : this.openOutput - (held.charge.outputTokens ?? 0)
    this.ledger = Ledger.settle(this.ledger, held, used, now)
    const { probe } = this
    if (probe === undefined || held.id <= probe.since) return
    probe.open--
    if (!succeeded || held.id <= probe.round) return
    this.heardAt = now
    probe.allowed *= 2
    if (probe.allowed <= 4) probe.round = this.lastId
    if (probe.allowed >= Math.min(1_024, this.concurrency)) this.probe = undefined
  }
  observe(signal: Limits.Signal, held: Ledger.Held | undefined, now: number): void {
    const isOpen = held !== undefined && this.open.has(held.id)
    const output = isOpen ? (held.charge.outputTokens ?? 0) : 0
    this.ledger = observe(
      this.ledger,
      signal,
      {
        id: held?.id ?? this.lastId,
        left: held?.left,
        output,
        uncounted: this.openOutput - output,
        idle: held !== undefined && held.id === this.lastId && this.open.size === (isOpen ? 1 : 0)
      },
      now
    )
  }
  pause(pause: Parameters<typeof Ledger.cool>[1], now: number): void {
    this.ledger = Ledger.cool(this.ledger, pause, now)
    if (pause.reason === "overload") return
    this.probe = { since: this.lastId, round: this.lastId, allowed: 1, open: 0 }
    this.heardAt = now
  }
}

describe.skipIf(Redis.skippedWithoutAny !== undefined)("redis script", () => {
  let server: Awaited<ReturnType<typeof Redis.any>>
  const connect = () => createClient({ url: server.url })
  let client: ReturnType<typeof connect>
  let sha: string

  beforeAll(async () => {
    server = await Redis.any()
    client = connect()
    await client.connect()
    sha = await client.scriptLoad(script)
  })
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })

  const run = async (
    seed: number,
    steps: number,
    { extreme = false, stepping = false }: { readonly extreme?: boolean; readonly stepping?: boolean } = {}
  ): Promise<void> => {
    const next = mulberry(seed)
    const below = (n: number) => Math.floor(next() * n)
    const pick = <A>(items: ReadonlyArray<A>): A => items[below(items.length)]!
    const keys = ["state", "open", "lost", "seen"].map((name) => `{${prefix}:${seed}${extreme}${stepping}}:${name}`)
    const options: PoolOptions = {
      limits: pick(extreme ? extremeSets : limitSets),
      concurrency: next() < 0.3 ? 4 : Infinity,
      headroom: pick([0, 0.05, 0.3]),
      ramp: next() < 0.2 ? { from: 0.25, millis: 70_000 } : undefined
    }
    let now = 1_795_000_000_000 + next() * 1_000
    /** What a clock says that is always right, and by how much the server's is behind it. */
    let right = now
    let behind = 0
    const oracle = new Oracle(options, now)
    let seq = 0
    let epoch = 0
    const ask = async (...operations: ReadonlyArray<Wire.Operation>): Promise<ReadonlyArray<unknown>> => {
      await client.set(`${keys[0]}:clock`, String(right - behind))
      // The lease never runs out here, and the operations after the first need no introduction.
      const list = epoch === 0 ? [Wire.open(options), ["join", [], []], ...operations] : operations
      const text = await client.evalSha(sha, {
        keys,
        arguments: ["a/1", JSON.stringify([++seq, epoch, -1, list, 0]), "c:", "100000000000", "keep"]
      })
      const reply = JSON.parse(String(text)) as Wire.Reply
      epoch = reply[1]
      assert.strictEqual(reply[0], now)
      return reply[7].slice(-operations.length)
    }
    await ask(["beat"])

    for (let step = 0; step < steps; step++) {
      const before = right - behind
      right += pick([0, next() * 5, next() * 500, next() * 20_000, ...(extreme ? [31_536_000_000 * next()] : [])])
      // It steps back, and is put right again.
      if (stepping && next() < 0.3)
        behind = pick([0, behind + pick([next() * 5, next() * 20_000, 86_400_000 * next()])])
      const clock = right - behind
      // The pool's time: at the clock's pace and never back; with the clock again when that has caught up.
      now = clock >= now ? clock : now + Math.max(0, clock - before)
      // Nobody is let in too early: no more time has passed than by a clock that is right.
      assert.isAtMost(now, right)
      oracle.advance(now)
      const label = `seed ${seed} step ${step}`
      const held = oracle.open.size > 0 && next() < 0.9 ? pick([...oracle.open.values()]) : undefined
      const action = next()
      if (action < 0.45) {
        const asked = Array.from({ length: pick([1, 1, 3]) }, () => {
          const estimate = extreme
            ? { inputTokens: pick([0, 1e-9, next(), 1e12 * next()]), outputTokens: pick([0, next(), 1e9]) }
            : { inputTokens: below(pick([10, 1_000, 30_000, 300_000])), outputTokens: below(5_000) }
          return { charge: Limits.charge(estimate, Ledger.rules(oracle.ledger)), priority: 0 }
        })
        const expected: Array<Ledger.Held> = []
        let refused: Blocked | undefined
        for (const { charge } of asked) {
          const decided = oracle.take(charge, now)
          if ("_tag" in decided) {
            refused = decided
            break
          }
          expected.push(decided)
        }
        const [reply] = (await ask(Wire.take(asked))) as [Wire.TakeReply]
        const granted = Wire.toGranted(asked, reply)
        assert.deepStrictEqual(Wire.toBlocked(reply[3]), refused, label)
        assert.deepStrictEqual(
          granted.map(({ id }) => id),
          expected.map(({ id }) => id),
          label
        )
        if (granted.length > 0) assert.deepStrictEqual(granted.at(-1)!.left, expected.at(-1)!.left, label)
        // What was left before the last is reckoned back from that.
        granted.forEach(({ left }, i) => {
          for (const dimension of Limits.dimensions) {
            const known = expected[i]!.left![dimension]
            if (known === undefined) assert.isUndefined(left[dimension], label)
            else
              assert.closeTo(
                left[dimension]!,
                known,
                1e-9 * Math.max(1, ...asked.map(({ charge }) => charge[dimension] ?? 0), Math.abs(known)),
                label
              )
          }
        })
      } else if (action < 0.7 && held !== undefined) {
        const used: { [D in Limits.Dimension]?: number } = {}
        for (const dimension of Limits.dimensions) {
          const estimate = held.charge[dimension]
          if (estimate !== undefined)
            used[dimension] = extreme
              ? estimate * pick([0, 1 / 3, 1, 1e6])
              : Math.floor(estimate * pick([0, 0.5, 1, next() * 2]))
        }
        const succeeded = next() < 0.7
        oracle.settle(held, used, succeeded, now)
        await ask(Wire.settle(held.id, used, succeeded))
      } else if (action < 0.9) {
        const dimensions: { [D in Limits.Dimension]?: Limits.DimensionSignal } = {}
        for (const dimension of Limits.dimensions) {
          if (next() < 0.5) continue
          const level = oracle.ledger.buckets[dimension]?.level ?? 50_000
          const figures = Array.from({ length: 8 }, () => Math.max(0, Math.round(level * (0.5 + next()))))
          dimensions[dimension] = {
            limit: next() < 0.3 ? pick(extreme ? nonsense : [30_000, 100_000, 50]) : undefined,
            remaining: next() < 0.8 ? pick(extreme ? [...nonsense, ...figures] : figures) : undefined,
            roundedTo: pick(extreme ? [undefined, 1, 1_000, 0, -1, 1e300] : [undefined, 1, 1_000]),
            window: pick([undefined, "bucket", "sliding"] as const)
          }
        }
        const signal = {
          dimensions,
          date: next() < 0.5 ? Math.floor(now / 1_000) * 1_000 - below(3) * 1_000 : undefined
        }
        oracle.observe(signal, held, now)
        await ask(Wire.observe(signal, held))
      } else if (action < 0.97) {
        const pause = {
          reason: pick(["rateLimit", "ramp", "overload"] as const),
          millis: below(20_000),
          charge: held?.charge,
          takenAt: held?.takenAt
        }
        oracle.pause(pause, now)
        await ask(Wire.pause(pause, 0))
      } else if (action < 0.98) {
        const untold = next() * 20_000
        oracle.ledger = Ledger.unlearn(oracle.ledger, untold, now)
        await ask(["unlearn", untold])
      } else {
        const limits = pick(extreme ? extremeSets : limitSets)
        oracle.ledger = Ledger.resize(oracle.ledger, limits, now)
        await ask(Wire.resize(limits, undefined))
      }
      const [snapshot] = (await ask(["snapshot"])) as [Wire.SnapshotReply]
      const seen = Wire.toSnapshot(snapshot, now).ledger
      const { configured: _, corrected, ...rest } = oracle.ledger
      const { configured: __, corrected: seenCorrected, ...seenRest } = seen
      assert.deepStrictEqual(seenRest, rest, label)
      for (const dimension of Limits.dimensions) {
        assert.strictEqual(seenCorrected[dimension] ?? 0, corrected[dimension] ?? 0, label)
      }
    }
  }

  it("decides and remembers as the pure step does, on random histories", { timeout: 60_000 }, async () => {
    for (let seed = 1; seed <= 40; seed++) await run(seed, 40)
    assert.isAbove(Number(await client.sendCommand(["DBSIZE"])), 0)
  })

  it(
    "does so at the edges of numbers, too: fractions, huge limits, a year between two calls",
    { timeout: 60_000 },
    async () => {
      for (let seed = 1; seed <= 40; seed++) await run(seed, 40, { extreme: true })
      assert.isAbove(Number(await client.sendCommand(["DBSIZE"])), 0)
    }
  )

  it("does so where the server's clock steps back and forward", { timeout: 60_000 }, async () => {
    for (let seed = 1; seed <= 40; seed++) await run(seed, 40, { stepping: true })
    assert.isAbove(Number(await client.sendCommand(["DBSIZE"])), 0)
  })
})
