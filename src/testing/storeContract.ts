/**
 * The contract of a `BudgetStore`, as checks that any test framework can run.
 *
 * The queue belongs to a process and the buckets to a store; these checks say what a store must do with them. The stores
 * of this package run them, and so should yours.
 *
 * **Example** (the memory store keeps the contract)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import { StoreContract } from "floodgate/testing"
 *
 * const [first] = StoreContract.checks({ layer: Layer.empty })
 *
 * first!.name // => "admits the longest prefix that fits, and says what the next must wait for"
 * await Effect.runPromise(first!.run) // => undefined
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { BudgetStore } from "../BudgetStore.ts"
import type { Held, PoolOptions, PoolStore, StoreUnavailable, Taken } from "../BudgetStore.ts"
import type * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"

/**
 * What a store did that the contract does not allow.
 *
 * @category errors
 * @since 0.1.0
 */
export class ContractBroken extends Schema.TaggedError<ContractBroken>("floodgate/testing/ContractBroken")(
  "ContractBroken",
  { check: Schema.String, expected: Schema.String, seen: Schema.String }
) {
  override get message(): string {
    return `A store that ${this.check}: expected ${this.expected}, saw ${this.seen}`
  }
}

/**
 * One check. Its name completes "a store ...".
 *
 * @category models
 * @since 0.1.0
 */
export interface Check {
  readonly name: string
  readonly run: Effect.Effect<void, ContractBroken | StoreUnavailable>
}

/**
 * How the checks run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Provides the store; `Layer.empty` for the store in memory. */
  readonly layer: Layer.Layer<never>
  /** Whether pools of one name share their state, in one process as between processes. @default false */
  readonly shared?: boolean | undefined
  /** Lets time pass for the store. @default Effect.sleep; under `TestClock` its `adjust` */
  readonly pass?: ((millis: number) => Effect.Effect<void>) | undefined
}

type Body = (tools: Tools) => Effect.Effect<void, ContractBroken | StoreUnavailable, Scope.Scope>

interface Tools {
  readonly pool: string
  readonly open: (
    limits: Limits.Limits,
    options?: Partial<PoolOptions>
  ) => Effect.Effect<PoolStore, StoreUnavailable, Scope.Scope>
  readonly pass: (millis: number) => Effect.Effect<void>
  readonly expect: (holds: boolean, expected: string, seen: unknown) => Effect.Effect<void, ContractBroken>
  /** Takes one charge that must be granted. */
  readonly grant: (store: PoolStore, charge: Limits.Charge) => Effect.Effect<Held, ContractBroken | StoreUnavailable>
  /** Takes one charge that must not be granted. */
  readonly refuse: (
    store: PoolStore,
    charge: Limits.Charge
  ) => Effect.Effect<NonNullable<Taken["blocked"]>, ContractBroken | StoreUnavailable>
  readonly level: (store: PoolStore, dimension: Limits.Dimension) => Effect.Effect<number, StoreUnavailable>
  /** Lets a cooldown pass, which began when the store heard of it; how much slower the rates are then. */
  readonly cooled: (store: PoolStore) => Effect.Effect<number, StoreUnavailable>
}

/** Slow enough that what refills during a check does not matter. */
const slow: Limits.Limits = { tokens: { perSecond: 1, burst: 1_000 } }
const fast: Limits.Limits = { tokens: { perSecond: 10_000, burst: 1_000 } }
const ask = (tokens: number, priority = 0) => ({ charge: { tokens }, priority })
/** What a store that reads a real clock may refill between two calls. */
const near = (a: number, b: number): boolean => Math.abs(a - b) <= 5

const bodies: ReadonlyArray<readonly [name: string, body: Body, onlyShared?: true]> = [
  [
    "admits the longest prefix that fits, and says what the next must wait for",
    Effect.fnUntraced(function* ({ expect, open }) {
      const store = yield* open(slow)
      const { blocked, granted } = yield* store.take([ask(400), ask(500), ask(300), ask(1)])
      yield* expect(granted.length === 2, "two grants", granted)
      yield* expect(granted[0]!.id < granted[1]!.id, "ids that count up", granted)
      const waits = blocked?._tag === "Wait" && blocked.dimension === "tokens" && blocked.millis > 100_000
      yield* expect(waits, "a wait of about 200 s for tokens", blocked)
    })
  ],
  [
    "takes every dimension at one instant or none",
    Effect.fnUntraced(function* ({ expect, grant, level, open, refuse }) {
      const store = yield* open({
        inputTokens: { perSecond: 1, burst: 100 },
        outputTokens: { perSecond: 1, burst: 100 }
      })
      yield* grant(store, { inputTokens: 10, outputTokens: 100 })
      yield* refuse(store, { inputTokens: 50, outputTokens: 10 })
      yield* expect(
        near(yield* level(store, "inputTokens"), 90),
        "90 input tokens left",
        yield* level(store, "inputTokens")
      )
    })
  ],
  [
    "admits after the wait that it promised",
    Effect.fnUntraced(function* ({ expect, grant, open, pass, refuse }) {
      const store = yield* open({ tokens: { perSecond: 1_000, burst: 1_000 } })
      yield* grant(store, { tokens: 1_000 })
      const blocked = yield* refuse(store, { tokens: 1_000 })
      yield* expect(blocked._tag === "Wait" && blocked.millis <= 1_000, "a wait of at most 1 s", blocked)
      yield* pass(blocked._tag === "Wait" ? blocked.millis + 1 : 0)
      yield* grant(store, { tokens: 1_000 })
    })
  ],
  [
    "settles once: a second settlement changes nothing",
    Effect.fnUntraced(function* ({ expect, grant, level, open }) {
      const store = yield* open(slow)
      const held = yield* grant(store, { tokens: 600 })
      yield* grant(store, { tokens: 400 })
      yield* store.settle(held, { tokens: 100 }, true)
      yield* store.settle(held, { tokens: 0 }, true)
      yield* expect(near(yield* level(store, "tokens"), 500), "a level of 500", yield* level(store, "tokens"))
    })
  ],
  [
    "turns what was used beyond the estimate into debt",
    Effect.fnUntraced(function* ({ expect, grant, level, open, refuse }) {
      const store = yield* open(slow)
      const held = yield* grant(store, { tokens: 1_000 })
      yield* store.settle(held, { tokens: 1_500 }, true)
      yield* expect(near(yield* level(store, "tokens"), -500), "a level of -500", yield* level(store, "tokens"))
      yield* refuse(store, { tokens: 1 })
    })
  ],
  [
    "never lifts a level above its capacity",
    Effect.fnUntraced(function* ({ expect, grant, level, open, pass }) {
      const store = yield* open(fast)
      const held = yield* grant(store, { tokens: 1_000 })
      yield* pass(150)
      yield* store.settle(held, { tokens: 0 }, true)
      yield* expect((yield* level(store, "tokens")) <= 1_000, "a level of at most 1000", yield* level(store, "tokens"))
    })
  ],
  [
    "lets in what is larger than the burst when the bucket is full, and has the bucket pay it back",
    Effect.fnUntraced(function* ({ expect, grant, level, open, refuse }) {
      const store = yield* open({ tokens: { perSecond: 100, burst: 1_000 } })
      yield* grant(store, { tokens: 3_000 })
      yield* expect((yield* level(store, "tokens")) < -1_900, "a debt of 2000", yield* level(store, "tokens"))
      yield* refuse(store, { tokens: 1 })
    })
  ],
  [
    "says when a quota is used up",
    Effect.fnUntraced(function* ({ expect, grant, open, refuse }) {
      const store = yield* open({ tokens: { total: 1_000 } })
      yield* grant(store, { tokens: 900 })
      const blocked = yield* refuse(store, { tokens: 200 })
      const said = blocked._tag === "Exhausted" && blocked.dimension === "tokens" && blocked.left === 100
      yield* expect(said, "an exhausted quota with 100 left", blocked)
      yield* grant(store, { tokens: 100 })
    })
  ],
  [
    "pauses for the longest of its cooldowns",
    Effect.fnUntraced(function* ({ cooled, expect, grant, open, refuse }) {
      const store = yield* open(slow)
      yield* store.pause({ reason: "rateLimit", millis: 300, charge: undefined })
      yield* store.pause({ reason: "rateLimit", millis: 10, charge: undefined })
      const blocked = yield* refuse(store, { tokens: 1 })
      yield* expect(blocked._tag === "Wait" && blocked.millis > 100, "a wait of about 300 ms", blocked)
      yield* cooled(store)
      yield* grant(store, { tokens: 1 })
    })
  ],
  [
    "slows its rates once for rejections of calls that were out together, and again for one that was sent later",
    Effect.fnUntraced(function* ({ cooled, expect, grant, open, pass }) {
      const store = yield* open(slow)
      const reject = Effect.fnUntraced(function* (held: Held) {
        yield* store.settle(held, { tokens: 0 }, false)
        yield* store.pause({ reason: "rateLimit", millis: 10, charge: held.charge, takenAt: held.takenAt })
        return yield* cooled(store)
      })
      const together = [yield* grant(store, { tokens: 1 }), yield* grant(store, { tokens: 1 })] as const
      yield* pass(10)
      const first = yield* reject(together[0])
      yield* expect(first < 1, "slower rates", first)
      const second = yield* reject(together[1])
      yield* expect(second === first, "rates as slow as before", second)
      const third = yield* reject(yield* grant(store, { tokens: 1 }))
      yield* expect(third < first, "slower rates still", third)
    })
  ],
  [
    "leaves its rates as they are for the provider's load, and slows them where usage grew too fast",
    Effect.fnUntraced(function* ({ cooled, expect, grant, open }) {
      const store = yield* open(slow)
      const after = Effect.fnUntraced(function* (reason: Pushback) {
        const { charge, takenAt } = yield* grant(store, { tokens: 1 })
        yield* store.pause({ reason, millis: 10, charge, takenAt })
        return yield* cooled(store)
      })
      const overloaded = yield* after("overload")
      yield* expect(overloaded === 1, "the full rates", overloaded)
      const grown = yield* after("ramp")
      yield* expect(grown < 1, "slower rates", grown)
    })
  ],
  [
    "keeps a part of each burst back",
    Effect.fnUntraced(function* ({ expect, grant, open, refuse }) {
      const store = yield* open(slow, { headroom: 0.1 })
      yield* grant(store, { tokens: 900 })
      const blocked = yield* refuse(store, { tokens: 50 })
      yield* expect(blocked._tag === "Wait" && blocked.millis > 40_000, "a wait of about 50 s", blocked)
    })
  ],
  [
    "starts at a part of its rates where it is told to",
    Effect.fnUntraced(function* ({ expect, grant, open, refuse }) {
      const store = yield* open(fast, { ramp: { from: 0.01, millis: 600_000 } })
      yield* grant(store, { tokens: 1_000 })
      const blocked = yield* refuse(store, { tokens: 1_000 })
      yield* expect(blocked._tag === "Wait" && blocked.millis > 5_000, "a wait of about 10 s", blocked)
    })
  ],
  [
    "lowers its view to what the provider has left, and learns a limit that is below its own",
    Effect.fnUntraced(function* ({ expect, grant, level, open }) {
      const store = yield* open({ tokens: { perMinute: 60_000 } })
      const held = yield* grant(store, { tokens: 10 })
      yield* store.observe({ dimensions: { tokens: { limit: 30_000, remaining: 200 } } }, held)
      yield* expect(
        (yield* level(store, "tokens")) <= 260,
        "a level of at most about 200",
        yield* level(store, "tokens")
      )
      yield* expect(store.rules().tokens?.most === 30_000, "a limit of 30000", store.rules())
      yield* store.observe({ dimensions: { tokens: { limit: 90_000 } } }, held)
      yield* level(store, "tokens")
      yield* expect(store.rules().tokens?.most === 60_000, "the configured limit of 60000", store.rules())
    })
  ],
  [
    "changes its limits at once while calls run, and keeps the debt",
    Effect.fnUntraced(function* ({ expect, grant, level, open }) {
      const store = yield* open(slow)
      const held = yield* grant(store, { tokens: 1_000 })
      yield* store.settle(held, { tokens: 1_200 }, true)
      yield* store.resize({ limits: { tokens: { perSecond: 2, burst: 500 } }, concurrency: undefined })
      yield* expect(store.rules().tokens?.capacity === 500, "a capacity of 500", store.rules())
      yield* expect(near(yield* level(store, "tokens"), -200), "a level of -200", yield* level(store, "tokens"))
      yield* expect(store.rules().tokens?.capacity === 500, "a capacity of 500 as before", store.rules())
    })
  ],
  [
    "keeps what is used of a quota when that is raised or cut, and begins a new one whole",
    Effect.fnUntraced(function* ({ expect, grant, level, open }) {
      const store = yield* open({ tokens: { total: 1_000 } })
      yield* grant(store, { tokens: 900 })
      const left = Effect.fnUntraced(function* (tokens: Limits.Limit) {
        yield* store.resize({ limits: { tokens }, concurrency: undefined })
        return yield* level(store, "tokens")
      })
      const raised = yield* left({ total: 1_500 })
      yield* expect(near(raised, 600), "600 left of 1500", raised)
      const cut = yield* left({ total: 950 })
      yield* expect(near(cut, 50), "50 left of 950", cut)
      const rated = yield* left({ perSecond: 1, burst: 10 })
      yield* expect(rated <= 10, "no more than the burst of a rate", rated)
      const begun = yield* left({ total: 500 })
      yield* expect(near(begun, 500), "500 left of 500", begun)
    })
  ],
  [
    "keeps the limits that it has learned of dimensions that a change does not concern",
    Effect.fnUntraced(function* ({ expect, grant, level, open }) {
      const store = yield* open({ requests: { perMinute: 6_000 } })
      const held = yield* grant(store, { requests: 1 })
      yield* store.observe({ dimensions: { inputTokens: { limit: 40_000, remaining: 10 } } }, held)
      yield* level(store, "inputTokens")
      yield* store.resize({ limits: { requests: { perMinute: 3_000 } }, concurrency: undefined })
      const most = () => [store.rules().requests?.most, store.rules().inputTokens?.most]
      yield* expect(most().join() === "3000,40000", "3000 requests and 40000 input tokens", most())
      yield* expect((yield* level(store, "inputTokens")) < 2_000, "the level as it was", store.rules())
      yield* expect(most().join() === "3000,40000", "3000 requests and 40000 input tokens as before", most())
    })
  ],
  [
    "goes back to the limits that are configured, and only where none were told for so long",
    Effect.fnUntraced(function* ({ expect, grant, level, open, pass }) {
      const store = yield* open({ tokens: { perMinute: 60_000 } })
      const held = yield* grant(store, { tokens: 10 })
      yield* store.observe({ dimensions: { requests: { limit: 100 }, tokens: { limit: 30_000 } } }, held)
      const most = () => [store.rules().requests?.most, store.rules().tokens?.most]
      yield* store.unlearn(3_600_000)
      yield* expect(most().join() === "100,30000", "the limits as learned", most())
      yield* pass(20)
      yield* store.unlearn(10)
      yield* expect(most().join() === ",60000", "the limits as configured", most())
      yield* level(store, "tokens")
      yield* expect(most().join() === ",60000", "the limits as configured, still", most())
      yield* store.observe({ dimensions: { tokens: { limit: 30_000 } } }, held)
      yield* store.resize({ limits: { tokens: { perMinute: 50_000 } }, concurrency: undefined })
      yield* store.unlearn(3_600_000)
      yield* expect(most().join() === ",50000", "the limits as changed", most())
    })
  ],
  [
    "admits never more than burst and rate allow, whatever is asked and settled",
    Effect.fnUntraced(function* ({ expect, open, pass }) {
      const store = yield* open(fast)
      const before = (yield* store.snapshot).now
      let used = 0
      for (let step = 0; step < 60; step++) {
        const { granted } = yield* store.take([ask(yield* Random.nextIntBetween(1, 400))])
        for (const held of granted) {
          const part = yield* Random.nextIntBetween(0, held.charge.tokens ?? 0)
          used += part
          yield* store.settle(held, { tokens: part }, true)
        }
        yield* pass(yield* Random.nextIntBetween(0, 5))
      }
      const most = 1_000 + ((yield* store.snapshot).now - before) * 10
      yield* expect(used <= most * (1 + 1e-9), `at most ${most} tokens`, used)
    })
  ],
  [
    "wakes a head that may come sooner than it was told, by what its own process says, too",
    Effect.fnUntraced(function* ({ expect, pass, pool }) {
      const budget = yield* Budget.make({ limits: slow, headroom: 0 })
      const reserve = (tokens: number) => Effect.orDie(budget.reserve({ tokens }, { pool }))
      const comes = Effect.fnUntraced(function* (head: Fiber.Fiber<unknown>, after: string) {
        for (let i = 0; i < 100 && head.pollUnsafe() === undefined; i++) yield* pass(10)
        yield* expect(head.pollUnsafe() !== undefined, `the head within a second of ${after}`, "none")
      })
      const held = yield* reserve(1_000)
      const first = yield* Effect.forkScoped(reserve(900))
      yield* pass(20)
      yield* budget.observe({ dimensions: { tokens: { remaining: 950 } }, reservation: held })
      yield* comes(first, "a signal that raised the level")
      const second = yield* Effect.forkScoped(reserve(1_000))
      yield* pass(20)
      yield* budget.resize({ limits: fast, pool })
      yield* comes(second, "a larger limit")
    })
  ],
  [
    "shares levels, quotas and cooldowns between all that open a pool",
    Effect.fnUntraced(function* ({ expect, grant, open, refuse }) {
      const one = yield* open({ tokens: { total: 1_000 } })
      const other = yield* open({ tokens: { total: 1_000 } })
      yield* grant(one, { tokens: 800 })
      yield* refuse(other, { tokens: 300 })
      yield* one.pause({ reason: "rateLimit", millis: 60_000, charge: undefined })
      // What one says is in order; the snapshot tells that it was heard.
      yield* one.snapshot
      const blocked = yield* refuse(other, { tokens: 10 })
      yield* expect(blocked._tag === "Wait" && blocked.millis > 50_000, "the other's cooldown", blocked)
    }),
    true
  ],
  [
    "counts calls in flight of all that open a pool, and gives permits back",
    Effect.fnUntraced(function* ({ grant, open, refuse }) {
      const one = yield* open(slow, { concurrency: 2 })
      const other = yield* open(slow, { concurrency: 2 })
      const held = yield* grant(one, { tokens: 1 })
      yield* grant(other, { tokens: 1 })
      yield* refuse(other, { tokens: 1 })
      yield* one.settle(held, { tokens: 1 }, true)
      yield* one.snapshot
      yield* grant(other, { tokens: 1 })
    }),
    true
  ],
  [
    "lets no small call of one overtake the large head of another, unless that one leaves",
    Effect.fnUntraced(function* ({ grant, open, refuse }) {
      const one = yield* open(slow)
      const other = yield* open(slow)
      yield* grant(one, { tokens: 500 })
      yield* refuse(one, { tokens: 900 })
      yield* refuse(other, { tokens: 10 })
      yield* one.take([])
      yield* grant(other, { tokens: 10 })
    }),
    true
  ],
  [
    "puts a higher priority first",
    Effect.fnUntraced(function* ({ expect, grant, open, refuse }) {
      const one = yield* open(slow)
      const other = yield* open(slow)
      yield* grant(one, { tokens: 500 })
      yield* refuse(one, { tokens: 900 })
      const { granted } = yield* other.take([ask(10, 1)])
      yield* expect(granted.length === 1, "a grant for the higher priority", granted)
    }),
    true
  ]
]

/**
 * The checks of the contract, each with the store's layer built anew and pools of its own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const checks = (options: Options): ReadonlyArray<Check> =>
  bodies
    .filter(([, , onlyShared]) => onlyShared !== true || options.shared === true)
    .map(([name, body], i) => ({ name, run: runCheck(name, body, i, options) }))

const runCheck = (
  check: string,
  body: Body,
  index: number,
  { layer, pass = (millis) => Effect.sleep(millis) }: Options
): Effect.Effect<void, ContractBroken | StoreUnavailable> =>
  Effect.gen(function* () {
    const store = yield* BudgetStore
    const pool = `contract-${index}-${yield* Random.nextIntBetween(0, 1_000_000_000)}`
    const fail = (expected: string, seen: unknown) =>
      Effect.fail(new ContractBroken({ check, expected, seen: JSON.stringify(seen) ?? String(seen) }))
    yield* body({
      pool,
      open: (limits, given) =>
        store.open(pool, { limits, concurrency: Infinity, headroom: 0, ramp: undefined, ...given }),
      pass,
      expect: (holds, expected, seen) => (holds ? Effect.void : fail(expected, seen)),
      grant: (opened, charge) =>
        Effect.flatMap(opened.take([{ charge, priority: 0 }]), ({ blocked, granted }) =>
          granted[0] === undefined ? fail(`a grant of ${JSON.stringify(charge)}`, blocked) : Effect.succeed(granted[0])
        ),
      refuse: (opened, charge) =>
        Effect.flatMap(opened.take([{ charge, priority: 0 }]), ({ blocked, granted }) =>
          blocked === undefined ? fail(`no grant of ${JSON.stringify(charge)}`, granted) : Effect.succeed(blocked)
        ),
      level: (opened, dimension) =>
        Effect.map(opened.snapshot, ({ ledger }) => ledger.buckets[dimension]?.level ?? NaN),
      cooled: (opened) =>
        Effect.flatMap(opened.snapshot, ({ ledger, now }) =>
          Effect.as(pass(Math.ceil((ledger.cooldown?.until ?? now) - now) + 1), ledger.pace.scale)
        )
    })
  }).pipe(Effect.scoped, Effect.provide(layer))
