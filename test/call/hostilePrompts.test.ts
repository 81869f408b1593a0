/** An agent whose prompts are not what they seem gets no more than its share of the pool, and others are estimated as before. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import type * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import type { Description } from "floodgate/protocol"

type Prefixes = NonNullable<Description["prefixes"]>

const bytesPerToken = 4
const seconds = 120
/** What each turn of a conversation adds. */
const appended = 250

/** A prompt of so many parts. Parts of one conversation have the same fingerprints in each of its calls. */
const prefixesOf = (conversation: number, sizes: ReadonlyArray<number>, isMarked = true): Prefixes => {
  let bytes = 0
  return {
    fingerprints: sizes.map((_, index) => conversation * 10_000 + index),
    bytes: sizes.map((tokens) => (bytes += bytesPerToken * tokens)),
    shared: 0,
    marks: isMarked ? [{ index: sizes.length - 1, life: 300_000 }] : [],
    automatic: undefined
  }
}

interface Sent {
  readonly agent: string
  readonly predicted: number
  readonly used: number
}

/** What a hostile agent sends in its call with this number, and what the provider counts. */
type Hostile = (n: number) => {
  readonly prefixes: Prefixes
  readonly tokens: number
  readonly actual: Accounting.Actual
}

/** Two honest agents with four conversations each, and another one with four calls at a time. All of them always have work. */
const play = Effect.fnUntraced(function* (hostile?: Hostile) {
  const governor = yield* Governor.Governor
  const sent: Array<Sent> = []
  const ask = (agent: string, prefixes: Prefixes, tokens: number, actual: Accounting.Actual) =>
    governor.run(
      { model: "m", bytes: bytesPerToken * tokens, prefixes, maxTokens: 10 },
      (ticket) =>
        Effect.gen(function* () {
          yield* Effect.sleep(500)
          ticket.recordUsage(actual)
          yield* Effect.sleep(500)
          const used = actual.inputTokens + (actual.cacheCreationTokens ?? 0)
          sent.push({ agent, predicted: ticket.reservation.estimate.inputTokens!, used })
          return { value: "", actual }
        }),
      { agent }
    )
  const converse = Effect.fnUntraced(function* (agent: number, conversation: number) {
    const sizes = [2_000]
    for (let read = 0; ; read = sizes.reduce((sum, size) => sum + size, 0), sizes.push(appended)) {
      const tokens = sizes.reduce((sum, size) => sum + size, 0)
      const actual = { inputTokens: 0, cacheCreationTokens: tokens - read, cacheReadTokens: read, outputTokens: 5 }
      yield* ask(`honest ${agent}`, prefixesOf(10 * agent + conversation, sizes), tokens, actual)
    }
  })
  const honest = (agent: number) =>
    Effect.all(
      [1, 2, 3, 4].map((n) => converse(agent, n)),
      { concurrency: "unbounded" }
    )
  let n = 0
  const worker = Effect.forever(
    Effect.suspend(() => {
      const { actual, prefixes, tokens } = hostile!(++n)
      return ask("hostile", prefixes, tokens, actual)
    })
  )
  const workers = hostile === undefined ? [] : [worker, worker, worker, worker]
  const fiber = yield* Effect.forkChild(Effect.all([honest(1), honest(2), ...workers], { concurrency: "unbounded" }))
  yield* TestClock.adjust(1_000 * seconds)
  yield* Fiber.interrupt(fiber)
  assert.strictEqual(yield* Clock.currentTimeMillis, 1_000 * seconds)
  return sent
})

const pool = Layer.fresh(
  Layer.provide(Governor.layer(), Budget.layer({ limits: { inputTokens: { perSecond: 600, burst: 6_000 } } }))
)

const usedBy = (sent: ReadonlyArray<Sent>, agent: string): number =>
  sent.filter((call) => call.agent === agent).reduce((sum, { used }) => sum + used, 0)

/** The median and the 90th percentile of the errors of honest agents, after the first two calls of each conversation. */
const errorsOf = (sent: ReadonlyArray<Sent>): readonly [median: number, high: number] => {
  const errors = ["honest 1", "honest 2"]
    .flatMap((agent) => sent.filter((call) => call.agent === agent).slice(8))
    .map(({ predicted, used }) => Math.abs(predicted - used) / used)
    .sort((one, other) => one - other)
  return [errors[Math.floor(errors.length / 2)]!, errors[Math.floor(0.9 * errors.length)]!]
}

const cold = (tokens: number): Accounting.Actual => ({
  inputTokens: 0,
  cacheCreationTokens: tokens,
  cacheReadTokens: 0,
  outputTokens: 5
})

describe("two agents beside one whose prompts are not what they seem", () => {
  it.effect("are estimated well without it", () =>
    Effect.gen(function* () {
      const [median, high] = errorsOf(yield* play())
      assert.isTrue(median < 0.05 && high < 0.1, `${median}, ${high}`)
    }).pipe(Effect.provide(pool))
  )

  const ways: Readonly<Record<string, Hostile>> = {
    "new content of the same lengths each time": (n) => ({
      prefixes: prefixesOf(1_000 + n, [1_500, 500]),
      tokens: 2_000,
      actual: cold(2_000)
    }),
    "breakpoints that the provider never writes": (n) => ({
      prefixes: prefixesOf(
        3,
        Array.from({ length: 1 + (n % 50) }, () => 40)
      ),
      tokens: 40 * (1 + (n % 50)),
      actual: { inputTokens: 40 * (1 + (n % 50)), outputTokens: 5 }
    }),
    "a prefix that it seems to repeat, and never reads": (n) => ({
      prefixes: prefixesOf(4, [1_900, ...Array.from({ length: n % 2 }, () => 100)]),
      tokens: 2_000,
      actual: cold(2_000)
    }),
    "counts that vary for one prompt": (n) => ({
      prefixes: prefixesOf(5, [1_000]),
      tokens: 1_000,
      actual: { inputTokens: 0, cacheCreationTokens: n % 3 === 0 ? 3_000 : 10, cacheReadTokens: 990, outputTokens: 5 }
    })
  }
  for (const [what, hostile] of Object.entries(ways)) {
    it.effect(`keep their shares and their estimates: ${what}`, () =>
      Effect.gen(function* () {
        const sent = yield* play(hostile)
        const [one, two, other] = ["honest 1", "honest 2", "hostile"].map((agent) => usedBy(sent, agent))
        const all = one! + two! + other!
        // A third is fair. What four calls of it use beyond their estimates is known only when they are answered.
        assert.isAtMost(other! / all, 0.45, `${one}, ${two}, ${other}`)
        assert.closeTo(one! / two!, 1, 0.25)
        const [median, high] = errorsOf(sent)
        assert.isTrue(median < 0.05 && high < 0.1, `${median}, ${high}`)
        // Nobody is over the limit for more than what was in flight.
        assert.isAtMost(all, 6_000 + 600 * seconds + 4 * 3_000)
      }).pipe(Effect.provide(pool))
    )
  }

  it.effect(
    "keep their shares if its prompts have the fingerprints of theirs, which makes an estimate worse and nothing else",
    () =>
      Effect.gen(function* () {
        const sent = yield* play((n) => ({
          prefixes: prefixesOf(11, [2_000, ...Array.from({ length: n % 20 }, () => appended)]),
          tokens: 2_000,
          actual: cold(2_000)
        }))
        const [one, two, other] = ["honest 1", "honest 2", "hostile"].map((agent) => usedBy(sent, agent))
        assert.isAtMost(other! / (one! + two! + other!), 0.45, `${one}, ${two}, ${other}`)
        assert.closeTo(one! / two!, 1, 0.5)
      }).pipe(Effect.provide(pool))
  )
})
