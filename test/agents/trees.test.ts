import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Trees from "floodgate/Trees"

const live = Governor.layer({ retry: Retry.make({ attempts: 1 }) }).pipe(
  Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layerUnlimited)))
)

const failureOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

/** The cap that refused an agent or its call, or how it has ended. */
const endOf = ({ exit }: { readonly exit: Exit.Exit<unknown, unknown> }): string => {
  const error = failureOf(exit)
  const cause = error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error
  if (cause instanceof Trees.TreeCapReached) return cause.by
  return cause instanceof Trees.TreeSpent ? cause.unit : exit._tag
}

const call = Effect.flatMap(Governor.Governor, (governor) =>
  governor.run({ model: "m", bytes: 400, inputTokens: 100, maxTokens: 10 }, () =>
    Effect.succeed({ value: "answer", actual: { inputTokens: 100, outputTokens: 10 } })
  )
)

const named = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Array.from({ length: count }, (_, index) => ({ key: `a${index}`, effect }))

describe("Agents.run with a tree", () => {
  it.effect("refuses new agents beyond a cap, and keeps the results of the others", () =>
    Effect.gen(function* () {
      const tree = Trees.make("research", { agents: 3 })
      const outcomes = yield* Agents.run(named(5, call), { tree })
      assert.deepStrictEqual(outcomes.map(endOf), ["Success", "Success", "Success", "agents", "agents"])
      assert.deepStrictEqual(
        outcomes.map(({ startedAfter }) => startedAfter && Duration.toMillis(startedAfter)),
        [0, 0, 0, undefined, undefined]
      )
      const error = failureOf(outcomes[3]!.exit)
      assert.include(String(error), "research may have at most 3 agents in all, so agent a3 may not start")
      const { agents, atOnce, refused } = yield* tree.status
      assert.deepStrictEqual({ agents, atOnce, refused }, { agents: 3, atOnce: 0, refused: 2 })
    }).pipe(Effect.provide(live))
  )

  it.effect("counts each start, also of a key that has run before, and names both", () =>
    Effect.gen(function* () {
      const tree = Trees.make("rounds", { agents: 5 })
      const first = yield* Agents.run(named(3, call), { tree })
      const second = yield* Agents.run(named(3, call), { tree })
      assert.deepStrictEqual([...first, ...second].map(endOf), [...Array(5).fill("Success"), "agents"])
      const { list } = yield* tree.status
      assert.deepStrictEqual(list.map(({ name }) => name).toSorted(), ["a0", "a0 2", "a1", "a1 2", "a2"])
    }).pipe(Effect.provide(live))
  )

  it.effect("counts an agent at once from its start to its end, and lets the concurrency wait for it", () =>
    Effect.gen(function* () {
      const slow = Effect.delay(call, "1 hour")
      const tree = Trees.make("the job", { atOnce: 2 })
      const running = yield* Effect.forkChild(Agents.run(named(3, slow), { tree }))
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual((yield* tree.status).atOnce, 2)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* Fiber.join(running)).map(endOf), ["Success", "Success", "atOnce"])

      const waiting = yield* Effect.forkChild(Agents.run(named(5, slow), { tree, concurrency: 2 }))
      yield* TestClock.adjust("3 hours")
      assert.deepStrictEqual((yield* Fiber.join(waiting)).map(endOf), Array(5).fill("Success"))
      assert.strictEqual((yield* tree.status).atOnce, 0)
    }).pipe(Effect.provide(live))
  )

  it.effect("lets one agent at a time run, and the first alone", () =>
    Effect.gen(function* () {
      const one = Trees.make("one at once", { atOnce: 1 })
      const outcomes = yield* Agents.run(named(3, call), { tree: one, concurrency: 1 })
      assert.deepStrictEqual(outcomes.map(endOf), ["Success", "Success", "Success"])
      const only = Trees.make("only one", { agents: 1, depth: 0 })
      const inner = Agents.run(named(1, call))
      const [lead] = yield* Agents.run([{ key: "lead", effect: inner }], { tree: only })
      assert.deepStrictEqual(lead!.exit.pipe(Exit.map((outcomes) => outcomes.map(endOf))), Exit.succeed(["depth"]))
    }).pipe(Effect.provide(live))
  )

  it.effect("counts agents that agents start in the same tree, one level deeper", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      const start = (depth: number): Effect.Effect<void, never, Agents.Meter> =>
        depth === 0
          ? Effect.void
          : Effect.map(Agents.run(named(2, start(depth - 1))), (outcomes) => void ends.push(...outcomes.map(endOf)))
      const tree = Trees.make("the job", { depth: 2 })
      yield* Agents.run([{ key: "lead", effect: start(3) }], { tree })
      const { agents, list } = yield* tree.status
      assert.strictEqual(agents, 7)
      assert.deepStrictEqual(
        list
          .filter(({ depth }) => depth > 0)
          .map(({ name, parent }) => [name, parent])
          .toSorted(),
        [
          ["lead/a0", "lead"],
          ["lead/a0/a0", "lead/a0"],
          ["lead/a0/a1", "lead/a0"],
          ["lead/a1", "lead"],
          ["lead/a1/a0", "lead/a1"],
          ["lead/a1/a1", "lead/a1"]
        ]
      )
      assert.strictEqual(ends.filter((end) => end === "depth").length, 8)
    }).pipe(Effect.provide(live))
  )

  it.effect("counts the agents of a named agent below it, and in each of two trees", () =>
    Effect.gen(function* () {
      const outer = Trees.make("outer", { agents: 4 })
      const inner = Trees.make("inner", { agents: 2 })
      const outcomes = yield* Agents.run(named(5, call), { tree: inner }).pipe(Trees.within(outer, { agent: "lead" }))
      assert.deepStrictEqual(outcomes.map(endOf), ["Success", "Success", "agents", "agents", "agents"])
      const { list } = yield* outer.status
      assert.include(
        list.map(({ depth, name, parent }) => `${parent} ${name} ${depth}`),
        "lead lead/a0 1"
      )
      assert.deepStrictEqual(
        (yield* inner.status).list.map(({ name }) => name),
        ["a0", "a1"]
      )
      // The same tree again is one tree.
      const again = Trees.make("again", { agents: 2 })
      const lead = Agents.run(named(2, call), { tree: again })
      const [exit] = yield* Agents.run([{ key: "lead", effect: lead }], { tree: again })
      assert.deepStrictEqual(
        Exit.map(exit!.exit, (all) => all.map(endOf)),
        Exit.succeed(["Success", "agents"])
      )
    }).pipe(Effect.provide(live))
  )

  it.effect("starts no agent after a stop, lets calls end, and goes on after it is undone", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job")
      const work = Effect.andThen(call, Effect.delay(call, 1_000))
      const running = yield* Effect.forkChild(Agents.run(named(4, work), { tree, concurrency: 2 }))
      yield* TestClock.adjust(500)
      yield* tree.stop("agents")
      yield* TestClock.adjust(500)
      assert.deepStrictEqual((yield* Fiber.join(running)).map(endOf), ["Success", "Success", "stop", "stop"])

      yield* tree.resume
      const later = yield* Effect.forkChild(Agents.run(named(4, work), { tree, concurrency: 2 }))
      yield* TestClock.adjust(500)
      yield* tree.stop("calls")
      yield* TestClock.adjust(500)
      const outcomes = yield* Fiber.join(later)
      assert.deepStrictEqual(outcomes.map(endOf), ["stop", "stop", "stop", "stop"])
      assert.deepStrictEqual(
        outcomes.map(({ startedAfter }) => startedAfter !== undefined),
        [true, true, false, false]
      )

      yield* tree.resume
      assert.deepStrictEqual((yield* Agents.run(named(2, call), { tree })).map(endOf), ["Success", "Success"])
    }).pipe(Effect.provide(live))
  )

  it.effect("counts the agents of any hour, and lets the next one start exactly then", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { perHour: 2 })
      const ends = Effect.map(Agents.run(named(3, call), { tree }), (outcomes) => outcomes.map(endOf))
      assert.deepStrictEqual(yield* ends, ["Success", "Success", "perHour"])
      yield* TestClock.adjust(3_599_999)
      assert.deepStrictEqual(yield* ends, ["perHour", "perHour", "perHour"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* ends, ["Success", "Success", "perHour"])
    }).pipe(Effect.provide(live))
  )

  it.effect("refuses calls beyond a cap on calls or tokens, whichever agent makes them", () =>
    Effect.gen(function* () {
      const calls = Trees.make("calls", { calls: 3 })
      const twice = Effect.andThen(call, call)
      assert.deepStrictEqual((yield* Agents.run(named(3, twice), { tree: calls, concurrency: 1 })).map(endOf), [
        "Success",
        "calls",
        "calls"
      ])
      const tokens = Trees.make("tokens", { tokens: 250 })
      const nested = Effect.map(Agents.run(named(3, call)), (outcomes) => outcomes.map(endOf))
      const [lead] = yield* Agents.run([{ key: "lead", effect: nested }], { tree: tokens })
      assert.deepStrictEqual(lead!.exit, Exit.succeed(["Success", "Success", "tokens"]))
      assert.strictEqual((yield* tokens.status).spent.tokens, 220)
    }).pipe(Effect.provide(live))
  )

  it.effect("ends agents that fail, throw, are cancelled or are interrupted", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { atOnce: 4 })
      const bug = Effect.sync(() => {
        throw new Error("a bug")
      })
      const job = yield* Agents.fork(
        [
          { key: "fails", effect: Effect.fail("no") },
          { key: "throws", effect: bug },
          { key: "dies", effect: Effect.die("no") },
          { key: "hangs", effect: Effect.never },
          { key: "stuck", effect: Effect.never }
        ],
        { tree }
      )
      yield* Effect.yieldNow
      assert.strictEqual((yield* tree.status).atOnce, 2)
      yield* job.cancel("hangs")
      assert.strictEqual((yield* tree.status).atOnce, 1)
      yield* job.cancelAll
      assert.strictEqual((yield* tree.status).atOnce, 0)

      const full = Trees.make("full", { atOnce: 1 })
      const run = yield* Effect.forkChild(Agents.run(named(3, Effect.never), { tree: full }))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* full.status).atOnce, 1)
      yield* Fiber.interrupt(run)
      assert.strictEqual((yield* full.status).atOnce, 0)
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("stops a job from within the start of an agent", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job")
      const gate = yield* Deferred.make<void>()
      const stops = Effect.andThen(tree.stop("agents"), Deferred.succeed(gate, undefined))
      const agents = [
        { key: "waits", effect: Deferred.await(gate) },
        { key: "stops", effect: stops },
        { key: "late", effect: call }
      ]
      const outcomes = yield* Agents.run(agents, { tree })
      assert.deepStrictEqual(outcomes.map(endOf), ["Success", "Success", "stop"])
    }).pipe(Effect.provide(live))
  )

  it.effect("takes nothing else for a tree", () =>
    Effect.gen(function* () {
      for (const tree of [null, {}, "the job", { internals: null }]) {
        const exit = yield* Effect.exit(Agents.run([], { tree: tree as unknown as Trees.Tree }))
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.include(String(defect), "RangeError: Agents.run: tree: expected a tree of Trees.make or Trees.open, got")
      }
    }).pipe(Effect.provide(live))
  )
})
