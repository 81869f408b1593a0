/** Ledgers that processes share: random histories keep their laws, and scenes that need an exact order of events. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Budget from "floodgate/Budget"
import * as Spending from "floodgate/Spending"
import { readFileSync } from "node:fs"
import { keyOf } from "../../packages/redis/src/store.ts"
import * as Ledger from "../../src/sharing/ledger.ts"
import * as LedgerText from "../../src/sharing/ledgerText.ts"
import * as Fault from "../support/fault.ts"
import { sized, some } from "../support/size.ts"
import { paying } from "../support/paying.ts"
import * as LedgerStorm from "./ledgerStorm.ts"
import * as World from "./world.ts"

const redis = await World.redis()
const key = keyOf("world", LedgerText.keyOf("us"))

const play = World.player(redis, "ledgers")

/** Opens the purse "us" in a process. */
const open = (process: World.Process, cap: Spending.Cap, options?: Parameters<typeof Spending.open>[2]) =>
  process.within(Spending.open("us", cap, options))

/** Two processes that share a cap of a dollar. */
const two = Effect.fnUntraced(function* (world: World.World) {
  const [a, b] = [yield* world.start("a", {}), yield* world.start("b", {})]
  return { a, b, ofA: yield* open(a, { dollars: 1 }), ofB: yield* open(b, { dollars: 1 }) }
})

/** A call that may cost `max` dollars, takes this long, and costs `cost`. Returns why it was refused. */
const call = (process: World.Process, purse: Spending.Purse, max: number, cost: number, millis: number) =>
  process.run(paying(purse, max, cost, millis))

const messageOf = (error: unknown): string =>
  error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? String(error.reason.cause) : String(error)

describe("a ledger in a store", { timeout: 180_000 }, () => {
  it("is one cap for all processes, which they use up", () => {
    const { refused, spent } = play((world) =>
      Effect.gen(function* () {
        let spent = 0
        const refused: Array<string> = []
        for (const name of ["a", "b", "c"]) {
          const process = yield* world.start(name, {})
          const purse = yield* open(process, { dollars: 1, per: "day" })
          const one = Effect.matchEffect(call(process, purse, 0.03, 0.01, 2_000), {
            onSuccess: () => Effect.sync(() => void (spent += 0.01)),
            onFailure: (error) => Effect.sync(() => void refused.push(messageOf(error)))
          })
          yield* Effect.forkDetach(
            Effect.all(
              Array.from({ length: 60 }, () => one),
              { concurrency: "unbounded" }
            )
          )
        }
        yield* Effect.sleep("5 minutes")
        return { refused, spent }
      })
    )
    assert.isAtMost(spent, 1 + 1e-9)
    assert.isAtLeast(spent, 0.9)
    assert.strictEqual(refused.length, 180 - Math.round(spent / 0.01))
    for (const message of refused) assert.match(message, /only \$0\.0\d+ is left of the cap of \$1\.00 a day for us/)
  })

  it("lets a call wait for what running calls of another process may give back", () => {
    const waited = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* Effect.forkDetach(call(a, ofA, 0.9, 0.1, 5_000))
        yield* Effect.sleep(1_000)
        const [duration] = yield* Effect.timed(call(b, ofB, 0.9, 0.5, 0))
        return Duration.toMillis(duration)
      })
    )
    assert.isAtLeast(waited, 3_900)
    assert.isAtMost(waited, 5_000)
  })

  it.each([150, 450])("gives back what was reserved for a caller that leaves after %d ms", (millis) => {
    const left = play((world) =>
      Effect.gen(function* () {
        // It takes some time until the store knows of the reservation, and more until the process knows that it does.
        const network = { least: 100, most: 100, lost: 0, doubled: 0 }
        const process = yield* world.start("a", {}, { network })
        const purse = yield* open(process, { dollars: 1 })
        const waiting = yield* Effect.forkChild(call(process, purse, 0.9, 0.9, 60_000))
        yield* Effect.sleep(millis)
        yield* Fiber.interrupt(waiting)
        yield* Effect.sleep(10_000)
        return (yield* process.run(purse.status)).left
      })
    )
    assert.strictEqual(left, 1)
  })

  it("counts as spent what a process had reserved when it died", () => {
    const left = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* Effect.forkDetach(call(a, ofA, 0.6, 0.1, 60_000))
        yield* Effect.sleep(1_000)
        yield* a.crash
        yield* Effect.sleep(30_000)
        yield* call(b, ofB, 0.3, 0.3, 0)
        const { left } = yield* b.run(ofB.status)
        return left
      })
    )
    assert.closeTo(left!, 0.1, 1e-9)
  })

  it("begins a day at midnight by the clock of the store, whatever the clocks of processes say", () => {
    const times = play((world) =>
      Effect.gen(function* () {
        world.aheadMillis = 86_400_000 - (1_700_000_000_000 % 86_400_000) - 60_000
        const process = yield* world.start("a", {}, { skewMillis: 5e9 })
        process.step(40 * 86_400_000)
        const purse = yield* open(process, { dollars: 1, per: "day" })
        yield* call(process, purse, 1, 1, 0)
        const early = yield* Effect.exit(call(process, purse, 1, 1, 0))
        yield* Effect.sleep(58_000)
        const late = yield* Effect.exit(call(process, purse, 1, 1, 0))
        yield* Effect.sleep(3_000)
        const next = yield* Effect.exit(call(process, purse, 1, 1, 0))
        return [early, late, next].map((exit) => exit._tag)
      })
    )
    assert.deepStrictEqual(times, ["Failure", "Failure", "Success"])
  })

  it("is known to a process from the time when it opens it, also if the store loses it before the first call", () => {
    const refused = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* call(a, ofA, 0.9, 0.9, 0)
        yield* Effect.sleep(8_000)
        redis.wipe()
        return messageOf(yield* Effect.flip(call(b, ofB, 0.5, 0.5, 0)))
      })
    )
    assert.match(refused, /only \$0\.10 is left of the cap of \$1\.00 for us/)
  })

  it("waits for what living processes know when the store has lost it", () => {
    const second = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* Effect.all([call(a, ofA, 0.1, 0.1, 0), call(b, ofB, 0.1, 0.1, 0)], { concurrency: 2 })
        yield* Effect.sleep(8_000)
        // The second process has not heard of this when the store is wiped.
        yield* call(a, ofA, 0.6, 0.6, 0)
        yield* Effect.sleep(600)
        redis.wipe()
        return yield* Effect.exit(call(b, ofB, 0.6, 0.6, 0))
      })
    )
    assert.strictEqual(second._tag, "Failure")
  })

  it("takes over once what a gateway of 0.3 has kept in its file", () => {
    const kept = { total: 400_000_000, cells: [{ ends: null, amount: 400_000_000 }] }
    const left = play((world) =>
      Effect.gen(function* () {
        const [a, b] = [yield* world.start("a", {}), yield* world.start("b", {})]
        const ofA = yield* open(a, { dollars: 1 }, { kept })
        const ofB = yield* open(b, { dollars: 1 }, { kept: { ...kept, cells: [{ ends: null, amount: 1e8 }] } })
        yield* Effect.sleep(2_000)
        yield* call(b, ofB, 0.1, 0.1, 0)
        yield* Effect.sleep(10_000)
        return [(yield* a.run(ofA.status)).left, (yield* b.run(ofB.status)).left]
      })
    )
    for (const each of left) assert.closeTo(each!, 0.4, 1e-9)
  })

  it("is raised and reset for all processes", () => {
    const seen = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* call(a, ofA, 1, 1, 0)
        yield* Effect.sleep(2_000)
        const before = yield* Effect.exit(call(b, ofB, 0.5, 0.5, 0))
        yield* a.run(ofA.resize({ dollars: 2 }))
        yield* Effect.sleep(2_000)
        const raised = yield* Effect.exit(call(b, ofB, 0.5, 0.5, 0))
        yield* a.run(ofA.reset)
        yield* Effect.sleep(2_000)
        yield* call(b, ofB, 0.25, 0.25, 0)
        return [before._tag, raised._tag, (yield* b.run(ofB.status)).left]
      })
    )
    assert.deepStrictEqual(seen, ["Failure", "Success", 1.75])
  })

  it("shows in a status what others have spent, a moment after one was asked for and that was old", () => {
    const seen = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* call(a, ofA, 0.1, 0.1, 0)
        // Long enough that an idle process asks no more by itself.
        yield* Effect.sleep(1_200_000)
        yield* call(b, ofB, 0.3, 0.3, 0)
        yield* Effect.sleep(10_000)
        const spent: Array<number> = []
        for (const millis of [0, 1_000, 1_000]) {
          yield* Effect.sleep(millis)
          spent.push((yield* a.run(ofA.status)).spent)
        }
        const before = world.requests()
        for (let n = 0; n < 20; n++) yield* a.run(ofA.status)
        yield* Effect.sleep(1_000)
        assert.strictEqual(world.requests(), before, "it asks at most once in five seconds")
        yield* Effect.sleep(5_000)
        for (let n = 0; n < 20; n++) yield* a.run(ofA.status)
        yield* Effect.sleep(1_000)
        assert.isAbove(world.requests(), before)
        return spent
      })
    )
    assert.deepStrictEqual(
      seen.map((spent) => Math.round(100 * spent) / 100),
      [0.1, 0.4, 0.4]
    )
  })

  it("is not touched by a version that does not know its form", () => {
    const [message, text] = play((world) =>
      Effect.gen(function* () {
        const a = yield* world.start("a", {})
        const ofA = yield* open(a, { dollars: 1 })
        yield* call(a, ofA, 0.5, 0.5, 0)
        yield* Effect.sleep(2_000)
        yield* a.close
        const state = JSON.parse(String(redis.send(["HGET", key, "value"])))
        const later = JSON.stringify({ ...state, format: 3, members: "of another form" })
        redis.send(["HSET", key, "value", later, "version", "later"])
        const b = yield* world.start("b", {}, { whenAway: "fail" })
        const ofB = yield* open(b, { dollars: 1 })
        const error = yield* Effect.flip(call(b, ofB, 0.1, 0.1, 0))
        return [messageOf(error), redis.send(["HGET", key, "value"]) === later]
      })
    )
    assert.match(String(message), /a later version of Floodgate has written it: update this process/)
    assert.isTrue(text)
  })

  it("is one cap for two versions side by side, and keeps what the later one has added", () => {
    const [kept, left] = play((world) =>
      Effect.gen(function* () {
        const a = yield* world.start("a", {})
        const ofA = yield* open(a, { dollars: 1 })
        yield* call(a, ofA, 0.5, 0.5, 0)
        yield* Effect.sleep(2_000)
        // A later version adds to the state, to its law and to its members.
        const state = JSON.parse(String(redis.send(["HGET", key, "value"])))
        for (const each of [state, state.law, ...Object.values<object>(state.members)])
          Object.assign(each, { later: 7 })
        redis.send(["HSET", key, "value", JSON.stringify(state), "version", "later.1"])
        const b = yield* world.start("b", {})
        const ofB = yield* open(b, { dollars: 1 })
        yield* call(b, ofB, 0.25, 0.25, 0)
        yield* call(a, ofA, 0.1, 0.1, 0)
        yield* Effect.sleep(10_000)
        const after = JSON.parse(String(redis.send(["HGET", key, "value"])))
        const members = Object.values<{ name: string; later?: number }>(after.members)
        return [
          [after.later, after.law.later, members.find(({ name }) => name === "a")!.later],
          (yield* b.run(ofB.status)).left
        ]
      })
    )
    assert.deepStrictEqual(kept, [7, 7, 7])
    assert.closeTo(left as number, 0.15, 1e-9)
  })

  it("gives back what was reserved for a call that left while the store was asked, at whichever moment", () => {
    const network = { ...World.calm, least: 20, most: 20 }
    const left = play((world) =>
      Effect.gen(function* () {
        const a = yield* world.start("a", {}, { network })
        const ofA = yield* open(a, { dollars: 1 })
        yield* call(a, ofA, 0.1, 0, 0)
        const held: Array<number> = []
        for (let millis = 0; millis <= 60; millis += 5) {
          const fiber = yield* Effect.forkDetach(call(a, ofA, 0.01, 0, 60_000))
          yield* Effect.sleep(millis)
          yield* Fiber.interrupt(fiber)
          yield* Effect.sleep(3_000)
          held.push((yield* a.run(ofA.status)).held)
        }
        return held
      })
    )
    assert.deepStrictEqual(
      left,
      left.map(() => 0)
    )
  })

  it("never lets a day begin twice, also when the clock of the store is set back", () => {
    const seen = play((world) =>
      Effect.gen(function* () {
        world.aheadMillis = 86_400_000 - (1_700_000_000_000 % 86_400_000) - 60_000
        const process = yield* world.start("a", {})
        const purse = yield* open(process, { dollars: 1, per: "day" })
        yield* call(process, purse, 1, 1, 0)
        yield* Effect.sleep(90_000)
        // The next day.
        const running = yield* Effect.forkDetach(call(process, purse, 1, 1, 120_000))
        yield* Effect.sleep(60_000)
        world.aheadMillis -= 5 * 60_000
        yield* Fiber.join(running)
        yield* Effect.sleep(10 * 60_000)
        return (yield* Effect.exit(call(process, purse, 0.5, 0.5, 0)))._tag
      })
    )
    assert.strictEqual(seen, "Failure")
  })

  it("keeps the parts of processes that cannot reach the store, and one for a process that starts later", () => {
    const spent = play((world) =>
      Effect.gen(function* () {
        const spent = { a: 0, b: 0, c: 0 }
        const start = Effect.fnUntraced(function* (name: keyof typeof spent) {
          const process = yield* world.start(name, {}, { whenAway: "degrade" })
          const purse = yield* open(process, { dollars: 1 })
          return {
            link: process.link,
            /** Spends until the cap or the part of the process is used up. */
            spend: Effect.gen(function* () {
              for (let n = 0; n < 120; n++) {
                const exit = yield* Effect.exit(Effect.timeout(call(process, purse, 0.01, 0.01, 0), "30 seconds"))
                if (exit._tag === "Failure") return
                spent[name] += 0.01
              }
            })
          }
        })
        const [a, b] = [yield* start("a"), yield* start("b")]
        yield* Effect.sleep(30_000)
        for (const { link } of [a, b]) link.isCutTo = link.isCutFrom = true
        yield* Effect.sleep(5_000)
        const c = yield* start("c")
        yield* Effect.all([a.spend, b.spend, c.spend], { concurrency: 3 })
        return spent
      })
    )
    for (const each of Object.values(spent)) assert.closeTo(each, 1 / 3, 0.02, JSON.stringify(spent))
    assert.isAtMost(spent.a + spent.b + spent.c, 1 + 1e-9)
  })

  it("counts a call once that ends after its process counted as dead", () => {
    const seen = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world)
        yield* Effect.forkDetach(call(a, ofA, 0.6, 0.1, 40_000))
        yield* Effect.sleep(1_000)
        a.freeze(60_000)
        yield* call(b, ofB, 0.1, 0.1, 0)
        yield* Effect.sleep(50_000)
        yield* call(b, ofB, 0.1, 0.1, 0)
        const dead = yield* b.run(ofB.status)
        yield* Effect.sleep(40_000)
        yield* call(b, ofB, 0.1, 0.1, 0)
        yield* Effect.sleep(20_000)
        const alive = [yield* a.run(ofA.status), yield* b.run(ofB.status)]
        return [dead, ...alive].map(({ held, left }) => [held, Math.round(100 * left!) / 100])
      })
    )
    assert.deepStrictEqual(seen, [
      [0, 0.2],
      [0, 0.6],
      [0, 0.6]
    ])
  })

  it("never holds less than nothing, which would enlarge the cap of the next period", () => {
    const day = 86_400_000
    const state = Ledger.local({ limit: 10, period: { _tag: "Day" }, reserve: "most" }, "a")
    const admit = (amount: number, now: number) => {
      const asked = { max: amount, expected: amount }
      return typeof Ledger.admit(state, "a", { priority: 0, cost: 1, asked }, 1, now) === "number"
    }
    assert.isTrue(admit(5, 0))
    // Its process counted as dead meanwhile: what it held is spent already.
    Ledger.settle(state, "a", 8, 2, 1)
    assert.strictEqual(Ledger.held(state), 0)
    assert.deepStrictEqual([admit(10, 2 * day), admit(3, 2 * day)], [true, false])
  })

  it("is read as 0.4 has stored it", () => {
    const stored = readFileSync(new URL("ledger-0.4.json", import.meta.url), "utf8")
    assert.deepStrictEqual(JSON.parse(LedgerText.encode(LedgerText.decode(stored))), JSON.parse(stored))
    assert.strictEqual(LedgerText.keyOf("us"), "ledger:us")
  })

  it("is refused by earlier versions while its cap is that of a month, and only then", () => {
    const stored = LedgerText.decode(readFileSync(new URL("ledger-0.4.json", import.meta.url), "utf8"))
    const period = { _tag: "Month", day: 31, zone: "Europe/Berlin" } as const
    const monthly = LedgerText.encode({ ...stored, config: { ...stored.config, period } })
    assert.strictEqual(JSON.parse(monthly).format, 2)
    const read = LedgerText.decode(monthly)
    assert.deepStrictEqual(read.config.period, period)
    assert.strictEqual(JSON.parse(LedgerText.encode({ ...read, config: stored.config })).format, 1)
    for (const wrong of ["Europe/Atlantis", "", 7]) {
      const text = monthly.replace('"Europe/Berlin"', JSON.stringify(wrong))
      assert.throws(() => LedgerText.decode(text), /is not a time zone/)
    }
    assert.throws(() => LedgerText.decode(monthly.replace('"day":31', '"day":32')))
  })

  for (const isLossyStore of [false, true]) {
    it(`keeps its laws in storms${isLossyStore ? " whose store forgets" : ""}`, () => {
      for (let seed = 1; seed <= sized(3, 40); seed++) {
        const complaint = LedgerStorm.complaint(LedgerStorm.plan(seed, isLossyStore), redis)
        assert.isUndefined(complaint, complaint)
      }
    })
  }
})

const bugs: ReadonlyArray<Fault.Fault & { readonly isLossyStore?: boolean; readonly seed?: number }> = [
  { without: "what a dead process held", in: "Processes.absorb", by: Fault.dropped(Fault.calling("giveUp")), seed: 7 },
  { without: "what a call has cost", in: "sharing/Ledger.settle", by: Fault.dropped(Fault.calling("spendOf")) },
  { without: "what running calls hold", in: "sharing/Ledger.held", by: Fault.instead(() => () => 0), seed: 10 },
  {
    without: "what only this process knows that the store has lost",
    in: "StoreLoss.merge",
    by: Fault.instead(() => (_kind: object, _ours: object, found: object) => found),
    isLossyStore: true,
    seed: 92
  },
  {
    without: "an end of what was committed: it is played twice",
    in: "Replica",
    by: Fault.dropped(Fault.calling("splice"))
  },
  {
    without: "an end of what a caller that has left had reserved",
    in: "line/Line.played",
    by: Fault.dropped(Fault.calling("transact"))
  }
]

describe("storms show a ledger", { timeout: 180_000, tags: "full" }, () => {
  for (const { isLossyStore = false, seed = 1, ...fault } of some(bugs, 6)) {
    it.effect(`without ${fault.without}`, () =>
      Fault.notices(fault, (take) =>
        Effect.map(World.codeOf(take), (code) => {
          const seeds = Array.from({ length: 60 }, (_, n) => seed + n)
          const shows = (each: number) => LedgerStorm.isBroken(LedgerStorm.plan(each, isLossyStore), redis, code)
          return seeds.some(shows) ? undefined : `none of 60 seeds from ${seed} on shows it`
        })
      )
    )
  }
})
