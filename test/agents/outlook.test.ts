import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"

const live = Effect.provide(
  Agents.layer.pipe(Layer.provide(Budget.layer({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })))
)

/** Calls that take a second each beside the limits, of which this part of the estimate is used. */
const calls = (count: number, tokens = 1_000) =>
  Effect.replicateEffect(
    Budget.withReservation({ inputTokens: tokens }, (held) =>
      Effect.andThen(Effect.sleep("1 second"), held.settle({ inputTokens: tokens, outputTokens: 0 }))
    ),
    count,
    { discard: true }
  )

/** Runs ten agents, and returns each progress beside the time when the job ended. */
const job = (name: string, options: Agents.Options = {}, count = 3, effect = calls(count)) =>
  Effect.gen(function* () {
    const running = yield* Agents.fork(
      Array.from({ length: 10 }, (_, index) => ({ key: `${name}-${index}`, effect })),
      options
    )
    const seen = yield* Effect.forkChild(Stream.runCollect(running.progress))
    yield* TestClock.adjust("1 hour")
    const outcomes = yield* running.await
    const end = Math.max(
      ...outcomes.map(
        ({ elapsed, startedAfter = Duration.zero }) => Duration.toMillis(startedAfter) + Duration.toMillis(elapsed)
      )
    )
    return { end, progress: Array.from(yield* Fiber.join(seen)) }
  }).pipe(Effect.scoped)

describe("Agents.run", () => {
  for (const concurrency of ["unbounded", 3, "advised"] as const) {
    it.effect(`foresees the end in its progress, with the range that earlier jobs teach (${concurrency})`, () =>
      Effect.gen(function* () {
        const first = yield* job("first", { concurrency })
        assert.isTrue(first.progress.every(({ foreseen }) => foreseen?.range === undefined))
        assert.isUndefined(first.progress.at(-1)!.foreseen)
        for (const name of ["second", "third", "fourth"]) yield* job(name, { concurrency })
        const { end, progress } = yield* job("fifth", { concurrency })
        const open = progress.slice(0, -1)
        assert.isAbove(open.length, 10)
        for (const { done, foreseen } of open) {
          const [from, middle, to] = [foreseen!.range!.from, foreseen!.end, foreseen!.range!.to].map(Duration.toMillis)
          assert.isTrue(from! <= middle! && middle! <= to!)
          assert.isTrue(from! <= end && end <= to!, `after ${done}: ${from} to ${to}, ${end}`)
          assert.isBelow(to! / from!, 2)
        }
      }).pipe(live)
    )
  }

  it.effect("learns nothing from jobs that were cancelled or failed", () =>
    Effect.gen(function* () {
      yield* job("first")
      for (const name of ["a", "b", "c"]) yield* job(name, {}, 0, Effect.andThen(calls(1), Effect.fail("no") as never))
      const { progress } = yield* job("last")
      assert.isTrue(progress.every(({ foreseen }) => foreseen?.range === undefined))
    }).pipe(live)
  )

  it.effect("foresees nothing if it is unclear which pool its agents use", () =>
    Effect.gen(function* () {
      for (const model of ["one", "two"])
        yield* Budget.withReservation({ inputTokens: 1 }, () => Effect.void, { model })
      const running = yield* Agents.fork([{ key: "a", effect: calls(3) }])
      yield* TestClock.adjust("500 millis")
      assert.isUndefined((yield* running.status).foreseen)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Agents.layer.pipe(
          Layer.provide(
            Budget.layer({
              limits: { pools: { one: { tokens: { perSecond: 1_000 } }, two: { tokens: { perSecond: 1_000 } } } }
            })
          )
        )
      )
    )
  )

  const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
  const step = Schema.Struct({ estimate: upTo(900), used: upTo(1_500), millis: upTo(3_000), end: upTo(3) })
  const oneAgent = Schema.Array(step).check(Schema.isMinLength(1), Schema.isMaxLength(4))

  /** A call whose usage differs from its estimate; which is refunded, fails, or ends without saying what it used. */
  const stepOf = ({ end, estimate, millis, used }: typeof step.Type) =>
    Budget.withReservation({ inputTokens: estimate }, (held) =>
      Effect.andThen(
        Effect.sleep(millis),
        [
          held.settle({ inputTokens: used, outputTokens: 0 }),
          held.refund,
          held.fail({ reason: "rateLimit", usage: { requests: 1 } }),
          Effect.void
        ][end]!
      )
    )

  it.effect.prop(
    "never goes backwards in its progress, and has the foreseen end with its range in each, once that is known",
    {
      agents: Schema.Array(oneAgent).check(Schema.isMinLength(2), Schema.isMaxLength(5)),
      concurrency: Schema.Literals(["unbounded", "advised", 2]),
      cancelled: upTo(6)
    },
    ({ agents, cancelled, concurrency }) =>
      Effect.gen(function* () {
        for (const name of ["first", "second", "third"]) yield* job(name, { concurrency }, 1)
        const clock = yield* Clock.Clock
        const running = yield* Agents.fork(
          agents.map((steps, index) => ({
            key: `agent-${index}`,
            effect: Effect.forEach(steps, stepOf, { discard: true })
          })),
          { concurrency }
        )
        const began = clock.currentTimeMillisUnsafe()
        const seen: Array<Agents.Progress & { readonly at: number }> = []
        const reader = yield* Effect.forkChild(
          Stream.runForEach(running.progress, (each) =>
            Effect.sync(() => void seen.push({ ...each, at: clock.currentTimeMillisUnsafe() - began }))
          )
        )
        yield* TestClock.adjust(1_000)
        yield* running.cancel(`agent-${cancelled}`)
        yield* TestClock.adjust("1 hour")
        yield* Fiber.join(reader)
        const stages = { waiting: 0, running: 1, succeeded: 2, failed: 2, cancelled: 2 }
        const figures = ({ agents, done, used }: Agents.Progress): ReadonlyArray<number> => [
          done,
          ...[used, ...agents.map((agent) => agent.used)].flatMap(({ calls, dollars, tokens }) => [
            calls,
            dollars,
            tokens
          ]),
          ...agents.map(({ state }) => stages[state])
        ]
        for (const [index, { at, done, foreseen, ...each }] of seen.entries()) {
          const before = seen[index - 1]
          if (before !== undefined) {
            const past = figures(before)
            assert.isTrue(figures({ ...each, done, foreseen }).every((figure, place) => figure >= past[place]!))
          }
          if (done === agents.length) continue
          const { end, range } = foreseen!
          const [from, middle, to] = [range!.from, end, range!.to].map(Duration.toMillis)
          assert.isTrue(at - 1 <= from! && from! <= middle! && middle! <= to!, `${at}: ${from}, ${middle}, ${to}`)
        }
        assert.strictEqual(seen.at(-1)!.done, agents.length)
        assert.isUndefined(seen.at(-1)!.foreseen)
      }).pipe(Effect.scoped, live),
    { tags: "full", arbitrary: { runs: 60 } }
  )
})
