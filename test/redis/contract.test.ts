import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as BudgetStore from "floodgate/BudgetStore"
import * as FloodgateRedis from "floodgate/redis"
import { StoreContract } from "floodgate/testing"
import { source } from "../../src/redis/scripts.ts"
import * as Wire from "../../src/redis/wire.ts"
import * as Redis from "./server.ts"
import { aroundSend } from "./wire.ts"

describe("memory store", () => {
  for (const check of StoreContract.checks({
    layer: Layer.empty,
    pass: (millis) => TestClock.adjust(millis)
  })) {
    it.effect(check.name, () => check.run)
  }
})

describe("a store that passes over what it is told", () => {
  const mutant = (
    optionsOf: (options: BudgetStore.PoolOptions) => BudgetStore.PoolOptions,
    storeOf: (store: BudgetStore.PoolStore) => BudgetStore.PoolStore = (store) => store
  ) =>
    Layer.succeed(BudgetStore.BudgetStore, {
      open: (pool, options) => Effect.map(BudgetStore.memory.open(pool, optionsOf(options)), storeOf)
    })
  const mutants = {
    "keeps a part of each burst back": mutant((options) => ({ ...options, headroom: 0 })),
    "starts at a part of its rates where it is told to": mutant((options) => ({ ...options, ramp: undefined })),
    "leaves its rates as they are for the provider's load, and slows them where usage grew too fast": mutant(
      (options) => options,
      (store) => ({ ...store, pause: (pause) => store.pause({ ...pause, reason: "rateLimit" }) })
    )
  }
  for (const [name, layer] of Object.entries(mutants)) {
    it.effect(`breaks the contract: ${name}`, () =>
      Effect.gen(function* () {
        const broken: Array<string> = []
        for (const check of StoreContract.checks({ layer, pass: (millis) => TestClock.adjust(millis) })) {
          yield* Effect.catch(check.run, () => Effect.sync(() => broken.push(check.name)))
        }
        assert.deepStrictEqual(broken, [name])
      })
    )
  }
})

describe("a store in batches", () => {
  /** The memory store, asked in batches: it rings when its own process has changed something, or it does not. */
  const inBatches = (rings: boolean) =>
    Layer.succeed(BudgetStore.BudgetStore, {
      open: (pool, options) =>
        Effect.map(
          Effect.all([BudgetStore.memory.open(pool, options), Queue.sliding<void>(1)]),
          ([store, bell]): BudgetStore.PoolStore => {
            const ringing = Effect.tap(() => (rings ? Queue.offer(bell, undefined) : Effect.void))
            return {
              ...store,
              observe: (signal, answered) => ringing(store.observe(signal, answered)),
              resize: (change) => ringing(store.resize(change)),
              drain: BudgetStore.inBatches(Stream.fromQueue(bell))
            }
          }
        )
    })
  const pass = (millis: number) => TestClock.adjust(millis)

  for (const check of StoreContract.checks({ layer: inBatches(true), pass })) {
    it.effect(check.name, () => check.run)
  }

  it.effect("breaks the contract where it does not ring", () =>
    Effect.gen(function* () {
      const broken: Array<string> = []
      for (const { name, run } of StoreContract.checks({ layer: inBatches(false), pass })) {
        yield* Effect.catch(run, ({ _tag }) => Effect.sync(() => broken.push(`${_tag}: ${name}`)))
      }
      assert.deepStrictEqual(broken, [
        "ContractBroken: wakes a head that may come sooner than it was told, by what its own process says, too"
      ])
    })
  )
})

const suites = [
  { name: "redis store", skipped: Redis.skippedWithoutAny, start: Redis.any },
  // Refuses what concerns keys of more than one slot.
  {
    name: "redis store, on a node of a cluster",
    skipped: Redis.skipped,
    start: () => Redis.start({ cluster: "alone" })
  }
]
for (const { name, skipped, start } of suites) {
  describe.skipIf(skipped !== undefined)(`${name}`, () => {
    const prefix = Redis.fresh("contract")
    let server: Pick<Redis.Server, "url" | "command" | "stop">
    beforeAll(async () => {
      server = await start()
    })
    afterAll(() => server.stop())

    const layer = Layer.suspend(() => FloodgateRedis.layerStoreUrl({ url: server.url, prefix }))
    // By the server's clock, so in real time.
    for (const check of StoreContract.checks({ layer, shared: true })) {
      it.live(check.name, () => check.run)
    }

    it.live("leaves nothing behind that does not expire", () =>
      Effect.promise(async () => {
        const keys = (await server.command("KEYS", `{${prefix}:*`)) as ReadonlyArray<string>
        assert.isAbove(keys.length, 0)
        for (const key of keys) {
          assert.match(key, /^\{contract-[0-9a-f]+:.*\}:\d+:(state|open|lost|seen)$/)
          assert.isAbove(Number(await server.command("PTTL", key)), 0, key)
        }
      })
    )
  })
}

describe.skipIf(Redis.skippedWithoutAny !== undefined)("redis store, where a pause comes late", () => {
  let server: Pick<Redis.Server, "url" | "stop">
  beforeAll(async () => {
    server = await Redis.any()
  })
  afterAll(() => server.stop())

  // Regression: on a busy machine a check waited for less than the cooldown that a pause on its way would begin.
  const late = aroundSend(
    (send) =>
      (command, ...args) =>
        args.some((said) => said.includes('["pause"'))
          ? Effect.delay(send(command, ...args), 100)
          : send(command, ...args)
  )
  const layer = Layer.suspend(() =>
    FloodgateRedis.layerStore({ prefix: Redis.fresh("late") }).pipe(
      Layer.provide(late),
      Layer.provide(NodeRedis.layer({ url: server.url })),
      Layer.orDie
    )
  )
  for (const check of StoreContract.checks({ layer, shared: true }).filter(({ name }) =>
    name.startsWith("slows its rates")
  )) {
    it.live(check.name, () => check.run)
  }
})

describe.skipIf(Redis.skipped !== undefined)("redis script, on a node of a cluster", () => {
  let server: Redis.Server
  beforeAll(async () => {
    server = await Redis.start({ cluster: "alone" })
  })
  afterAll(() => server.stop())

  it.live("touches no key that it does not declare", () =>
    Effect.promise(async () => {
      const keys = ["state", "open", "lost", "seen"].map((part) => `{strict}:${part}`)
      // Where a script declares its language, the server sees to that. (Redis 6.2 does not know the declaration.)
      const run = (owner: string, lost: string, seq: number, operations: ReadonlyArray<Wire.Operation>) =>
        server.command(
          "EVAL",
          `#!lua\n${source}`,
          "4",
          ...keys,
          owner,
          JSON.stringify([seq, 0, 0, operations, 0]),
          "c:",
          "50",
          lost
        )
      const options = { limits: { tokens: { perMinute: 1_000 } }, concurrency: 2, headroom: 0, ramp: undefined }
      const introduction = [
        Wire.open(options),
        ["join", [[1, 0, [-1, -1, -1, 5]]], []]
      ] as ReadonlyArray<Wire.Operation>
      const ask = Wire.take([{ charge: { tokens: 10 }, priority: 0 }])
      await run("dead/1", "keep", 1, [...introduction, ask, ask])
      await new Promise((resolve) => setTimeout(resolve, 120))
      const said = await run("alive/1", "keep", 1, [
        ...introduction,
        ask,
        Wire.settle(1, { tokens: 1 }, true),
        Wire.observe({ dimensions: { tokens: { remaining: 10 } } }, undefined),
        Wire.pause({ reason: "rateLimit", millis: 1, charge: { tokens: 10 } }, 0),
        ["back", 2, 10, [false, false, false, false], [[0, [-1, -1, -1, 5]]]],
        ["beat"],
        ["snapshot"],
        ["holders"],
        ["leave"]
      ])
      assert.isAbove(JSON.parse(String(said))[1], 0)
    })
  )
})

if (Redis.skippedWithoutAny !== undefined) {
  console.warn(`SKIPPED: the tests of the Redis store, because ${Redis.skippedWithoutAny}`)
} else if (Redis.skipped !== undefined) {
  console.warn(`SKIPPED: the tests of the Redis store in trouble and in a cluster, because ${Redis.skipped}`)
}
