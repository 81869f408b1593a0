/**
 * The guarantees of every way into the governor, as one suite that runs for each client, under `TestClock` and over real
 * HTTP.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type * as Budget from "floodgate/Budget"
import type { ProviderSim } from "floodgate/testing"
import { withStalls } from "./stalls.ts"

/** How a client is set up: how the provider behaves, and what the budget knows about it. */
export interface Setup {
  readonly provider?: ProviderSim.Options
  readonly budget?: Budget.Options
  readonly retry: { readonly attempts?: number; readonly maxElapsedMillis?: number }
}

/** A client, and what its provider recorded. */
export interface World {
  /** Requests a whole answer; returns the tokens that it reports. */
  readonly ask: (characters: number, agent: string) => Effect.Effect<readonly [input: number, output: number], unknown>
  /** Requests an answer as a stream of texts. */
  readonly stream: (characters: number, agent: string) => Stream.Stream<string, unknown>
  /** Continues a stored conversation by sending only the new text; returns the answer's id and the input that it reports. */
  readonly follow?: (
    characters: number,
    agent: string,
    previous: string | undefined
  ) => Effect.Effect<readonly [id: string, input: number], unknown>
  readonly stats: Effect.Effect<ProviderSim.Stats>
  readonly log: Effect.Effect<ReadonlyArray<ProviderSim.Entry>>
  readonly pool: Effect.Effect<Budget.PoolStatus>
}

export interface Way {
  readonly name: string
  readonly clock: "test" | "live"
  /** Whether the provider stores conversations. @default false */
  readonly follows?: boolean
  /** Whether a stream begins with what its prompt has used. @default false */
  readonly saysInput?: boolean
  /** Whether streams reach the caller chunk by chunk. @default true */
  readonly streams?: boolean
  /** Whether it accepts calls of tools that the request did not name. @default true */
  readonly tools?: boolean
  readonly start: (setup: Setup) => Effect.Effect<World, unknown, Scope.Scope>
}

const fast = { baseMillis: 5, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
const slow = { ...fast, baseMillis: 3_600_000 }
/** Streams that have content long before they end. */
const wordy = { latency: { ...fast, perOutputTokenMillis: 5 }, outputTokens: 100, reply: () => "word ".repeat(100) }
const quick = { attempts: 3 }

/** Quotas never refill, so their levels show what was settled. */
const quotas = { requests: { total: 1_000 }, inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }

export const guarantees = ({
  clock,
  follows = false,
  name,
  saysInput = false,
  start,
  streams = true,
  tools = true
}: Way): void => {
  const test = clock === "live" ? it.live : it.effect
  const ofStreams = (title: string, effect: Parameters<typeof it.live>[1]): void => {
    if (streams) test(title, effect)
  }
  const world = (setup: Partial<Setup> = {}) =>
    start({
      retry: quick,
      ...setup,
      provider: { latency: fast, outputTokens: 20, reply: () => "four words of text", ...setup.provider },
      budget: { limits: quotas, ...setup.budget }
    })

  /** Lets time pass until a condition holds, or the test times out. */
  const until = <A>(effect: Effect.Effect<A>, holds: (a: A) => boolean): Effect.Effect<A> =>
    clock === "live"
      ? Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("2 millis") })
      : Effect.flatMap(Effect.andThen(TestClock.adjust("1 millis"), effect), (a) =>
          holds(a) ? Effect.succeed(a) : until(effect, holds)
        )
  /** Runs an effect to its end, however long it takes. */
  const finish = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>) {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    if (clock === "test") yield* TestClock.adjust("10 minutes")
    return yield* Fiber.join(fiber)
  })
  const idle = (pool: World["pool"]) => until(pool, ({ inFlight, queued }) => inFlight === 0 && queued === 0)
  const texts = (stream: Stream.Stream<string, unknown>) => Effect.map(Stream.runCollect(stream), (all) => all.join(""))

  describe(`Guarantees: ${name}`, () => {
    test("is never over the limit: twelve agents, no 429 reaches a caller", () =>
      Effect.gen(function* () {
        const rate = clock === "live" ? 120_000 : 6_000
        const { ask, log, stats } = yield* world({
          provider: { limits: { inputTokens: { perSecond: rate, burst: 60_000 } } },
          budget: { limits: { inputTokens: { perSecond: rate, burst: 60_000 } } }
        })
        const agents = Array.from({ length: 12 }, (_, n) => `agent ${n}`)
        const [, stalled] = yield* withStalls(
          finish(
            Effect.forEach(agents, (agent) => Effect.andThen(ask(60_000, agent), ask(60_000, agent)), {
              concurrency: "unbounded",
              discard: true
            })
          )
        )
        const { completed, rejected } = yield* stats
        assert.strictEqual(completed, 24)
        // Over a network the two clocks differ. A call refills in 125 ms, so if the process stalls for half of that, calls go out
        // later than they were counted.
        const late = stalled > 62 ? 12 : 4
        assert.isAtMost(rejected, clock === "live" ? late : 0)
        // And not for being idle: what 24 calls need beyond the burst takes this long, estimates included. Real time
        // passes on a busy machine while nobody is heard.
        const [first, last] = [(yield* log)[0]!, (yield* log).at(-1)!]
        const most = clock === "live" ? 6 : 1.35
        assert.isBelow(last.at - first.at, ((24 * 15_000 - 60_000) / rate) * 1_000 * most)
      }))

    test("is fair: one agent's queue delays another's first call by one call", () =>
      Effect.gen(function* () {
        const { ask, log } = yield* world({ budget: { limits: quotas, concurrency: 1 } })
        const calls = [...Array.from({ length: 10 }, () => "busy"), "other"]
        yield* finish(Effect.forEach(calls, (agent) => ask(40, agent), { concurrency: "unbounded", discard: true }))
        const order = (yield* log).map(({ agent }) => agent)
        assert.isAtMost(order.indexOf("other"), 2)
      }))

    test("takes nothing when it is interrupted while it waits", () =>
      Effect.gen(function* () {
        const { ask, pool, stats } = yield* world({
          provider: { latency: slow },
          budget: { limits: quotas, concurrency: 1 }
        })
        const running = yield* Effect.forkChild(ask(40, "a"))
        yield* until(stats, ({ inFlight }) => inFlight === 1)
        const before = yield* pool
        const waiting = yield* Effect.forkChild(ask(40, "b"))
        yield* until(pool, ({ queued }) => queued === 1)
        yield* Fiber.interrupt(waiting)
        const after = yield* pool
        assert.strictEqual(after.queued, 0)
        assert.deepStrictEqual(after.dimensions, before.dimensions)
        assert.strictEqual((yield* stats).requests, 1)
        yield* Fiber.interrupt(running)
      }))

    test("aborts the request when it is interrupted while it runs, and keeps its input", () =>
      Effect.gen(function* () {
        const { ask, pool, stats } = yield* world({ provider: { latency: slow } })
        const fiber = yield* Effect.forkChild(ask(4_000, "a"))
        yield* until(stats, ({ inFlight }) => inFlight === 1)
        yield* Fiber.interrupt(fiber)
        yield* until(stats, ({ aborted }) => aborted === 1)
        const { dimensions } = yield* idle(pool)
        assert.isBelow(dimensions.inputTokens!.level, 100_000)
        assert.strictEqual(dimensions.outputTokens!.level, 100_000)
      }))

    test("settles to the usage of the answer", () =>
      Effect.gen(function* () {
        const { ask, pool } = yield* world()
        assert.deepStrictEqual(yield* finish(ask(4_000, "a")), [1_000, 20])
        const { dimensions } = yield* idle(pool)
        assert.strictEqual(dimensions.requests!.level, 999)
        assert.strictEqual(dimensions.inputTokens!.level, 99_000)
        assert.strictEqual(dimensions.outputTokens!.level, 99_980)
      }))

    test("settles a stream to its usage when it ends", () =>
      Effect.gen(function* () {
        const { pool, stream } = yield* world()
        assert.strictEqual(yield* finish(texts(stream(4_000, "a"))), "four words of text")
        const { dimensions } = yield* idle(pool)
        assert.strictEqual(dimensions.inputTokens!.level, 99_000)
        assert.strictEqual(dimensions.outputTokens!.level, 99_980)
      }))

    ofStreams("holds a stream's reservation for its life, and ends it when the consumer has enough", () =>
      Effect.gen(function* () {
        // Slow enough that the first words arrive long before the last is sent, also on a busy machine.
        const { pool, stats, stream } = yield* world({
          provider: {
            latency: { ...fast, perOutputTokenMillis: 20 },
            outputTokens: 500,
            reply: () => "word ".repeat(500)
          }
        })
        const inFlight = stream(4_000, "a").pipe(
          Stream.filter((text) => text !== ""),
          Stream.take(1),
          Stream.mapEffect(() => Effect.map(pool, (pool) => pool.inFlight)),
          Stream.runCollect
        )
        assert.deepStrictEqual(yield* finish(inFlight), [1])
        const { dimensions } = yield* idle(pool)
        const output = 100_000 - dimensions.outputTokens!.level
        assert.isTrue(output > 0 && output < 500, `${output}`)
        yield* until(stats, ({ aborted }) => aborted === 1)
      })
    )

    if (saysInput) {
      test("charges a stream that has begun for what its prompt has used, so that others wait from then on", () =>
        Effect.gen(function* () {
          const { pool, stats, stream } = yield* world({
            provider: {
              inputTokens: () => 30_000,
              latency: { ...fast, perOutputTokenMillis: 20 },
              outputTokens: 500,
              reply: () => "word ".repeat(500)
            }
          })
          const level = Effect.map(pool, ({ dimensions }) => dimensions.inputTokens!.level)
          const seen = stream(4_000, "a").pipe(
            Stream.filter((text) => text !== ""),
            Stream.take(1),
            Stream.mapEffect(() => level),
            Stream.runCollect
          )
          assert.deepStrictEqual(yield* finish(seen), [70_000])
          yield* idle(pool)
          yield* until(stats, ({ aborted }) => aborted === 1)
          assert.strictEqual(yield* level, 70_000)
        }))
    }

    test("is retried once on 529, and settles each attempt", () =>
      Effect.gen(function* () {
        const { ask, pool, stats } = yield* world({ provider: { faults: [{ kind: "529", calls: [1] }] } })
        yield* finish(ask(4_000, "a"))
        assert.strictEqual((yield* stats).requests, 2)
        const { dimensions } = yield* idle(pool)
        assert.strictEqual(dimensions.requests!.level, 998)
        assert.strictEqual(dimensions.inputTokens!.level, 99_000)
      }))

    test("retries a stream that was refused before its first content", () =>
      Effect.gen(function* () {
        const { stats, stream } = yield* world({ provider: { faults: [{ kind: "529", calls: [1] }] } })
        assert.strictEqual(yield* finish(texts(stream(40, "a"))), "four words of text")
        assert.strictEqual((yield* stats).requests, 2)
      }))

    ofStreams("does not retry a stream that broke after content, and ends its reservation", () =>
      Effect.gen(function* () {
        const { pool, stats, stream } = yield* world({
          // The content comes long before the cut, because a broken socket loses data that it has not delivered.
          provider: {
            faults: [{ kind: "cut" }],
            latency: { ...fast, perOutputTokenMillis: 20 },
            outputTokens: 100,
            reply: () => "word ".repeat(100)
          }
        })
        const exit = yield* finish(Effect.exit(texts(stream(40, "a"))))
        assert.isTrue(Exit.isFailure(exit))
        assert.strictEqual((yield* stats).requests, 1)
        yield* idle(pool)
      })
    )

    test("refunds a rejected call and waits as long as it was asked to", () =>
      Effect.gen(function* () {
        const { ask, log, pool } = yield* world({
          provider: { headers: "exact", faults: [{ kind: "429", calls: [1], retryAfterMillis: 100 }] }
        })
        yield* finish(ask(4_000, "a"))
        const [first, second] = yield* log
        // Timers may fire up to a millisecond early.
        assert.isAtLeast(second!.at - first!.at, 99)
        const { dimensions } = yield* idle(pool)
        assert.strictEqual(dimensions.requests!.level, 999)
        assert.strictEqual(dimensions.inputTokens!.level, 99_000)
      }))

    test("does not retry a spend limit, although it comes as 429", () =>
      Effect.gen(function* () {
        const { ask, stats } = yield* world({
          provider: { faults: [{ kind: "429", errorCode: "enforced_spend_limit_reached" }] }
        })
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(ask(40, "a")))))
        assert.strictEqual((yield* stats).requests, 1)
      }))

    test("waits until an outage is over", () =>
      Effect.gen(function* () {
        const { ask, stats } = yield* world({
          retry: {},
          provider: { faults: [{ kind: "529", calls: [1, 2] }] }
        })
        yield* finish(ask(40, "a"))
        assert.strictEqual((yield* stats).requests, 3)
      }))

    test("sends no more requests than the attempts that are stated, also in an outage", () =>
      Effect.gen(function* () {
        const { ask, stats } = yield* world({
          retry: { attempts: 2 },
          provider: { faults: [{ kind: "529", calls: [1, 2] }] }
        })
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(ask(40, "a")))))
        assert.strictEqual((yield* stats).requests, 2)
      }))

    test("gives up at its deadline while the provider is down, and takes nothing", () =>
      Effect.gen(function* () {
        const { ask, pool } = yield* world({
          retry: { maxElapsedMillis: 500 },
          provider: { faults: [{ kind: "529" }] }
        })
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(ask(40, "a")))))
        assert.strictEqual((yield* idle(pool)).dimensions.inputTokens!.level, 100_000)
      }))

    test("does not retry what the provider finds wrong with a request, and takes nothing for it", () =>
      Effect.gen(function* () {
        const { ask, pool, stats, stream } = yield* world({ provider: { faults: [{ kind: "400" }] } })
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(ask(4_000, "a")))))
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(texts(stream(4_000, "a"))))))
        assert.strictEqual((yield* stats).requests, 2)
        assert.strictEqual((yield* idle(pool)).dimensions.inputTokens!.level, 100_000)
      }))

    test("does not ask again for an answer that is malformed, which was paid for", () =>
      Effect.gen(function* () {
        const { ask, pool, stats, stream } = yield* world({ provider: { ...wordy, faults: [{ kind: "malformed" }] } })
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(ask(4_000, "a")))))
        // A reader that ignores unknown events gets the texts without an end.
        yield* finish(Effect.exit(texts(stream(4_000, "a"))))
        assert.strictEqual((yield* stats).requests, 2)
        const { dimensions } = yield* idle(pool)
        assert.strictEqual(dimensions.requests!.level, 998)
        assert.isBelow(dimensions.inputTokens!.level, 99_100)
      }))

    ofStreams("ends the reservation of a stream that ends without its end", () =>
      Effect.gen(function* () {
        const { pool, stats, stream } = yield* world({ provider: { ...wordy, faults: [{ kind: "truncated" }] } })
        yield* finish(Effect.exit(texts(stream(4_000, "a"))))
        assert.strictEqual((yield* stats).requests, 1)
        yield* idle(pool)
      })
    )

    if (follows) {
      test("knows what a conversation costs of which it sees only what is new", () =>
        Effect.gen(function* () {
          // Room for two turns. The new text of the third would fit by itself, but not with the conversation.
          const { follow, pool, stats } = yield* world({
            budget: { limits: { ...quotas, inputTokens: { total: 2_700 } } }
          })
          const [first, one] = yield* finish(follow!(4_000, "a", undefined))
          const [second, two] = yield* finish(follow!(40, "a", first))
          assert.deepStrictEqual([one, two], [1_000, 1_015])
          assert.strictEqual((yield* idle(pool)).dimensions.inputTokens!.level, 2_700 - one - two)
          assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(follow!(40, "a", second)))))
          assert.strictEqual((yield* stats).requests, 2)
        }))
    }

    if (tools) {
      test("settles an answer that calls a tool, whole and streamed", () =>
        Effect.gen(function* () {
          const { ask, pool, stream } = yield* world({
            provider: { reply: () => ["Wait.", { type: "tool_use", name: "weather", input: { city: "Paris" } }] }
          })
          assert.deepStrictEqual(yield* finish(ask(4_000, "a")), [1_000, 20])
          assert.strictEqual(yield* finish(texts(stream(4_000, "a"))), "Wait.")
          const { dimensions } = yield* idle(pool)
          assert.strictEqual(dimensions.inputTokens!.level, 98_000)
          assert.strictEqual(dimensions.outputTokens!.level, 99_960)
        }))
    }

    test("sends nothing that can never fit", () =>
      Effect.gen(function* () {
        const { ask, stats } = yield* world({ budget: { limits: { inputTokens: { total: 100 } } } })
        assert.isTrue(Exit.isFailure(yield* finish(Effect.exit(ask(40_000, "a")))))
        assert.strictEqual((yield* stats).requests, 0)
      }))
  })
}
