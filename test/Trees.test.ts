import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Trees from "floodgate/Trees"
import { mulberry } from "./support/random.ts"
import { sized } from "./support/size.ts"

const live = Governor.layer({ retry: Retry.make({ attempts: 3 }) }).pipe(Layer.provideMerge(Budget.layerUnlimited))

const seeds = Array.from({ length: sized(10, 2_000) }, (_, index) => index + 1)

/** A call of an agent that takes this long. Returns the cap that refused it, or "sent". */
const call = (tree: Trees.Tree, agent: string, parent?: string, millis = 0) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run({ model: "m", bytes: 400 }, () => Effect.as(Effect.sleep(millis), { value: "sent" }))
  ).pipe(
    Trees.within(tree, { agent, parent }),
    Effect.catch((error) => {
      const cause = error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error
      return Effect.succeed(cause instanceof Trees.TreeCapReached ? cause.by : String(cause))
    })
  )

/** With a dollar for a million tokens. */
const priced = Governor.layer({ prices: { m: { input: 1, output: 1 } }, retry: Retry.make({ attempts: 1 }) }).pipe(
  Layer.provideMerge(Budget.layerUnlimited)
)

/** A call of an agent that may use so many tokens, and uses others. Returns "sent", or why it was refused. */
const spending = (
  tree: Trees.Tree,
  agent: string,
  inputTokens: number,
  maxTokens: number | undefined,
  used: number,
  written: number,
  millis = 0
) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run({ model: "m", bytes: 400, inputTokens, ...(maxTokens === undefined ? {} : { maxTokens }) }, () =>
      Effect.as(Effect.sleep(millis), { value: "sent", actual: { inputTokens: used, outputTokens: written } })
    )
  ).pipe(
    Trees.within(tree, { agent }),
    Effect.catch((error) => {
      const cause = error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error
      return Effect.succeed(cause instanceof Error ? `${cause.message}` : String(cause))
    })
  )

describe("Trees", () => {
  it.effect("refuse the first call of one agent too many, and none of those that have begun", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { agents: 3 })
      const names = ["lead", "a", "b", "c", "a", "lead", "c"]
      const results = yield* Effect.forEach(names, (name) => call(tree, name, name === "lead" ? undefined : "lead"))
      assert.deepStrictEqual(results, ["sent", "sent", "sent", "agents", "sent", "sent", "agents"])
      const { agents, refused } = yield* tree.status
      assert.deepStrictEqual({ agents, refused }, { agents: 3, refused: 2 })
    }).pipe(Effect.provide(live))
  )

  it.effect("count an agent as running until five minutes after its last call has ended", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { atOnce: 2 })
      const long = yield* Effect.forkChild(call(tree, "lead", undefined, 600_000))
      yield* call(tree, "a", "lead")
      yield* TestClock.adjust(299_999)
      assert.strictEqual(yield* call(tree, "b", "lead"), "atOnce")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* call(tree, "b", "lead"), "sent")
      // One that comes back goes on, however many there are.
      assert.strictEqual(yield* call(tree, "a", "lead"), "sent")
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* Fiber.join(long), "sent")
    }).pipe(Effect.provide(live))
  )

  it.effect("count the new agents of an hour, and say when the next one may start", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { perHour: 2 })
      yield* call(tree, "lead")
      yield* TestClock.adjust("10 minutes")
      yield* call(tree, "a", "lead")
      const refused = yield* Effect.flatMap(Governor.Governor, (governor) =>
        governor.run({ model: "m", bytes: 400 }, () => Effect.succeed({ value: 1 }))
      ).pipe(Trees.within(tree, { agent: "b", parent: "lead" }), Effect.flip)
      assert.include(refused.message, "one more may start at 1970-01-01T01:00:00.000Z")
      yield* TestClock.adjust(Duration.millis(3_000_000 - 1))
      assert.strictEqual(yield* call(tree, "b", "lead"), "perHour")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* call(tree, "b", "lead"), "sent")
    }).pipe(Effect.provide(live))
  )

  it.effect("count generations, and take an unknown parent for the first agent", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { depth: 2 })
      const results = [
        yield* call(tree, "lead"),
        yield* call(tree, "a", "lead"),
        yield* call(tree, "b", "a"),
        yield* call(tree, "c", "b"),
        yield* call(tree, "d", "nobody")
      ]
      assert.deepStrictEqual(results, ["sent", "sent", "sent", "depth", "sent"])
      const { list } = yield* tree.status
      assert.deepStrictEqual(
        list.map(({ depth, name, parent }) => [name, parent, depth]),
        [
          ["lead", undefined, 0],
          ["a", "lead", 1],
          ["d", "nobody", 1],
          ["b", "a", 2]
        ]
      )
    }).pipe(Effect.provide(live))
  )

  it.effect("are stopped by an operator, for new agents or for all calls, and go on again", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job")
      const running = yield* Effect.forkChild(call(tree, "lead", undefined, 1_000))
      yield* Effect.yieldNow
      yield* tree.stop("agents")
      assert.deepStrictEqual([yield* call(tree, "a", "lead"), yield* call(tree, "lead")], ["stop", "sent"])
      yield* tree.stop("calls")
      assert.strictEqual(yield* call(tree, "lead"), "stop")
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* Fiber.join(running), "sent")
      yield* tree.resume
      assert.deepStrictEqual([yield* call(tree, "a", "lead"), yield* call(tree, "lead")], ["sent", "sent"])
    }).pipe(Effect.provide(live))
  )

  it.effect("let a refused agent in after its caps are raised, and keep agents after they are lowered", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { agents: 1 })
      yield* call(tree, "lead")
      assert.strictEqual(yield* call(tree, "a"), "agents")
      yield* tree.resize({ agents: 2 })
      assert.strictEqual(yield* call(tree, "a"), "sent")
      yield* tree.resize({ agents: 1 })
      assert.deepStrictEqual([yield* call(tree, "a"), yield* call(tree, "b")], ["sent", "agents"])
    }).pipe(Effect.provide(live))
  )

  it.effect("hold all trees around a call, or none", () =>
    Effect.gen(function* () {
      const [outer, inner] = [Trees.make("outer", { agents: 9 }), Trees.make("inner", { agents: 1 })]
      const both = (agent: string) => call(inner, agent).pipe(Trees.within(outer, { agent }))
      assert.deepStrictEqual([yield* both("a"), yield* both("b")], ["sent", "agents"])
      assert.strictEqual((yield* inner.status).agents, 1)
      assert.strictEqual((yield* outer.status).atOnce, 1)
    }).pipe(Effect.provide(live))
  )

  it.effect("forget no running call when a caller is interrupted", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { atOnce: 1 })
      const begun = yield* Deferred.make<void>()
      const waits = Effect.flatMap(Governor.Governor, (governor) =>
        governor.run({ model: "m", bytes: 4 }, () => Effect.andThen(Deferred.succeed(begun, undefined), Effect.never))
      ).pipe(Trees.within(tree, { agent: "lead" }))
      const fiber = yield* Effect.forkChild(waits)
      yield* Deferred.await(begun)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* tree.status).atOnce, 1)
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual((yield* tree.status).atOnce, 0)
    }).pipe(Effect.provide(live))
  )

  it("throw for caps that nothing can keep", () => {
    assert.throws(() => Trees.make("the job", { agents: 0 }), RangeError, "agents")
    assert.throws(() => Trees.make("the job", { agents: 10_001 }), RangeError, "10000")
    assert.throws(() => Trees.make("the job", { depth: -1 }), RangeError, "depth")
    assert.throws(() => Trees.make("the job", { agent: 3 } as Trees.AgentCaps), RangeError, "agents")
  })

  it.effect("agree with a plain list, whatever agents do", () =>
    Effect.forEach(
      seeds,
      (seed) => {
        const random = mulberry(seed)
        const upTo = (max: number) => Math.floor(random() * (max + 1))
        const caps = { agents: 1 + upTo(5), atOnce: 1 + upTo(4), perHour: 1 + upTo(4), depth: upTo(3) }
        return Effect.gen(function* () {
          const tree = Trees.make("the job", caps)
          const seen: Array<{ readonly name: string; readonly depth: number; readonly since: number; at: number }> = []
          let now = 0
          for (let event = 0; event < 40; event++) {
            const millis = upTo(2) === 0 ? upTo(2_000_000) : upTo(100_000)
            yield* TestClock.adjust(millis)
            now += millis
            const [name, below] = [`${upTo(7)}`, `${upTo(7)}`]
            const parent = name === below ? undefined : below
            const known = seen.find((each) => each.name === name)
            const depth = parent === undefined ? 0 : (seen.find((each) => each.name === parent)?.depth ?? 0) + 1
            const isRefused =
              known === undefined &&
              (depth > caps.depth ||
                seen.length >= caps.agents ||
                seen.filter(({ since }) => since > now - 3_600_000).length >= caps.perHour ||
                seen.filter(({ at }) => at > now - 300_000).length >= caps.atOnce)
            assert.strictEqual((yield* call(tree, name, parent)) !== "sent", isRefused, `seed ${seed}, event ${event}`)
            if (known !== undefined) known.at = now
            else if (!isRefused) seen.push({ name, depth, since: now, at: now })
          }
          assert.strictEqual((yield* tree.status).agents, seen.length)
        }).pipe(Effect.provide(live), Effect.provide(TestClock.layer()))
      },
      { discard: true }
    )
  )

  it.effect("refuse every call beyond a cap on calls, tokens or dollars, in words that say what is spent", () =>
    Effect.gen(function* () {
      const ask = (tree: Trees.Tree, agent: string) => spending(tree, agent, 100, 50, 100, 50)
      const messages: Array<string> = []
      for (const caps of [{ calls: 2 }, { tokens: 449 }, { dollars: 0.000449 }]) {
        const tree = Trees.make("the job", caps)
        assert.deepStrictEqual([yield* ask(tree, "lead"), yield* ask(tree, "a")], ["sent", "sent"])
        messages.push(String(yield* ask(tree, "lead")), String(yield* ask(tree, "new")))
        const { caps: inForce, reserved, spent } = yield* tree.status
        assert.deepInclude(inForce, caps)
        const [unit] = Object.keys(caps) as ["calls" | "tokens" | "dollars"]
        assert.closeTo(spent[unit]!, { calls: 2, tokens: 300, dollars: 0.0003 }[unit], 1e-9)
        assert.strictEqual(reserved[unit], 0)
        yield* tree.resize(Object.fromEntries(Object.entries(caps).map(([unit, cap]) => [unit, 2 * cap])))
        assert.strictEqual(yield* ask(tree, "lead"), "sent")
      }
      assert.deepStrictEqual(
        messages.filter((_, index) => index % 2 === 0),
        messages.filter((_, index) => index % 2 === 1)
      )
      assert.match(
        messages[0]!,
        /^the job has spent 2 calls of the 2 calls that it may, so no further call was sent: end your/
      )
      assert.match(
        messages[2]!,
        /spent 300 tokens of the 449 tokens that it may, so this call, which may use 150 tokens, was not sent/
      )
      assert.match(messages[4]!, /spent \$0\.0003 of the \$0\.0004\d* that it may/)
    }).pipe(Effect.provide(priced))
  )

  it.effect("count neither calls that the provider rejects nor those that were not sent", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { calls: 2, tokens: 10_000 })
      const rejected = Effect.flatMap(Governor.Governor, (governor) =>
        governor.run({ model: "m", bytes: 4, inputTokens: 100, maxTokens: 50 }, () =>
          Effect.fail({ pushback: "rateLimit" as const, isRetryable: false, usage: { requests: 1 } })
        )
      ).pipe(Trees.within(tree, { agent: "lead" }), Effect.exit)
      yield* rejected
      yield* rejected
      const { reserved, spent } = yield* tree.status
      assert.deepStrictEqual({ reserved, spent }, { reserved: { calls: 0, tokens: 0 }, spent: { calls: 0, tokens: 0 } })
    }).pipe(Effect.provide(live))
  )

  it.effect(
    "refuse a call under a cap on tokens whose answer nothing limits, unless what is expected is reserved",
    () =>
      Effect.gen(function* () {
        const unlimited = (caps: Trees.JobCaps) =>
          spending(Trees.make("the job", caps), "lead", 100, undefined, 100, 50)
        assert.match(String(yield* unlimited({ tokens: 1_000_000 })), /Nothing limits the output/)
        assert.strictEqual(yield* unlimited({ tokens: 1_000_000, reserve: "expected" }), "sent")
        assert.strictEqual(yield* unlimited({ calls: 10 }), "sent")
      }).pipe(Effect.provide(live))
  )

  it.effect("never spend more than the caps of all trees around, and always as a plain sum says", () =>
    Effect.forEach(
      seeds,
      (seed) => {
        const random = mulberry(seed)
        const upTo = (max: number) => Math.floor(random() * (max + 1))
        const caps = { tokens: 200 + upTo(2_000), dollars: (200 + upTo(2_000)) / 1e6, calls: 3 + upTo(20) }
        return Effect.gen(function* () {
          const [outer, inner] = [Trees.make("outer", caps), Trees.make("inner", { tokens: caps.tokens })]
          const sum = { calls: 0, tokens: 0 }
          const one = Effect.gen(function* () {
            yield* Effect.sleep(upTo(5_000))
            const [input, output] = [1 + upTo(100), upTo(100)]
            // A prompt of no tokens is no count.
            const [used, written] = [1 + upTo(input - 1), upTo(output)]
            const trees = upTo(1) === 0 ? [outer, inner] : [inner, outer]
            const result = yield* spending(trees[0]!, `${upTo(3)}`, input, output, used, written, upTo(3_000)).pipe(
              Trees.within(trees[1]!, { agent: "lead" })
            )
            for (const { caps, reserved, spent } of [yield* outer.status, yield* inner.status]) {
              for (const unit of ["tokens", "dollars", "calls"] as const) {
                assert.isAtMost(
                  (spent[unit] ?? 0) + (reserved[unit] ?? 0),
                  (caps[unit] ?? Infinity) + 1e-9,
                  `seed ${seed}`
                )
              }
            }
            if (result !== "sent") return
            sum.calls++
            sum.tokens += used + written
          })
          const all = yield* Effect.forkChild(
            Effect.all(
              Array.from({ length: 40 }, () => one),
              { concurrency: 8 }
            )
          )
          yield* TestClock.adjust("10 minutes")
          yield* Fiber.join(all)
          const { reserved, spent } = yield* outer.status
          assert.deepInclude(spent, sum, `seed ${seed}`)
          assert.closeTo(spent.dollars!, sum.tokens / 1e6, 1e-12)
          assert.deepStrictEqual(reserved, { dollars: 0, tokens: 0, calls: 0 })
        }).pipe(Effect.provide(priced), Effect.provide(TestClock.layer()))
      },
      { discard: true }
    )
  )

  it.effect("survive names of the properties of objects", () =>
    Effect.gen(function* () {
      const tree = Trees.make("the job", { agents: 2 })
      const names = ["__proto__", "constructor", "toString"]
      assert.deepStrictEqual(yield* Effect.forEach(names, (name) => call(tree, name)), ["sent", "sent", "agents"])
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(call(tree, "__proto__"))))
    }).pipe(Effect.provide(live))
  )
})
