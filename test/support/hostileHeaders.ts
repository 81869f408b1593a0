/**
 * A provider, or a proxy in front of it, whose headers are nonsense, over real HTTP and the TestClock. Whatever they say, no
 * call waits longer than the bounds below, every figure stays finite, and normal answers restore normal pace.
 */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { message } from "./httpProvider.ts"
import { type Handler, serve, type TestServer } from "./httpServer.ts"

/** Where the budgets under test keep their state. */
export interface Setting {
  /** The store of each process. The first process gets the hostile headers, the last one normal ones. */
  readonly stores: readonly [Layer.Layer<never>, ...ReadonlyArray<Layer.Layer<never>>]
  /** Waits in real time until pending answers have arrived. */
  readonly quiet: (server: TestServer) => Effect.Effect<void>
}

const year = 31_536_000
const minute = 60_000
const hour = 60 * minute
/** A minute for limits learned from headers, and the waits between attempts. */
export const soon = 3 * minute
/** As `soon`, if three rejections teach a limit of one call a minute. */
const slow = 5 * minute

type Pairs = ReadonlyArray<readonly [string, string]>

interface Case {
  readonly name: string
  readonly headers: Pairs
  /** The longest a call may take, in simulated milliseconds. */
  readonly within: number
  /** Whether calls may be refused at once, with the reason, for the hour that such a header is believed. */
  readonly refuses?: boolean
}

const token = "anthropic-ratelimit-input-tokens"
const request = "anthropic-ratelimit-requests"
const long = "9".repeat(7_000)
const all = (limit: string, remaining: string, reset: string): Pairs =>
  [token, request, "anthropic-ratelimit-output-tokens", "anthropic-ratelimit-tokens"].flatMap((name) => [
    [`${name}-limit`, limit],
    [`${name}-remaining`, remaining],
    [`${name}-reset`, reset]
  ])

export const cases: ReadonlyArray<Case> = [
  // At most an hour is believed. The rejected call gives up at once, as at a spend limit; later calls wait.
  { name: "a retry-after of a year", headers: [["retry-after", `${year}`]], within: 1.3 * hour, refuses: true },
  {
    name: "a retry-after-ms of a year",
    headers: [["retry-after-ms", `${year}000`]],
    within: 1.3 * hour,
    refuses: true
  },
  {
    name: "a retry-after as a date in 2100",
    headers: [["retry-after", "Fri, 01 Jan 2100 00:00:00 GMT"]],
    within: 1.3 * hour,
    refuses: true
  },
  { name: "a retry-after of 1e300", headers: [["retry-after", "1e300"]], within: soon },
  { name: "a negative retry-after", headers: [["retry-after", "-5"]], within: soon },
  { name: "a retry-after of NaN", headers: [["retry-after", "NaN"]], within: soon },
  { name: "a retry-after in 1970", headers: [["retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"]], within: soon },
  { name: "a retry-after of 7,000 digits", headers: [["retry-after", long]], within: soon },
  { name: "resets in 1970", headers: all("1000", "0", "1970-01-01T00:00:00Z"), within: slow, refuses: true },
  { name: "resets in 9999", headers: all("2000000", "0", "9999-12-31T23:59:59Z"), within: soon },
  { name: "resets that are no date", headers: all("2000000", "0", "2026-99-99T99:99:99Z"), within: soon },
  { name: "a remaining of 1e300", headers: all("2000000", "1e300", ""), within: soon },
  { name: "a remaining of 10^15", headers: all("2000000", `1${"0".repeat(15)}`, ""), within: soon },
  { name: "a remaining below zero", headers: all("2000000", "-1000000", ""), within: soon },
  { name: "a remaining of zero", headers: all("2000000", "0", ""), within: soon },
  { name: "a remaining of zero without a limit", headers: [[`${token}-remaining`, "0"]], within: soon },
  { name: "a limit of 0", headers: all("0", "0", ""), within: soon },
  { name: "a limit of -1", headers: all("-1", "-1", ""), within: soon },
  { name: "a limit of NaN", headers: all("NaN", "NaN", "NaN"), within: soon },
  { name: "a limit of Infinity", headers: all("Infinity", "Infinity", "Infinity"), within: soon },
  { name: "a limit of 1e300", headers: all("1e300", "1e300", "1e300"), within: soon },
  { name: "a limit of 10^12", headers: all("1000000000000", "1000000000000", ""), within: soon },
  { name: "a limit of a millionth", headers: all("0.000001", "0", ""), within: soon },
  { name: "a limit of 1", headers: all("1", "1", ""), within: soon, refuses: true },
  {
    name: "values of 7,000 digits",
    headers: [
      [`${token}-limit`, long],
      [`${request}-remaining`, long]
    ],
    within: soon
  },
  {
    name: "headers that come twice",
    headers: [
      [`${token}-limit`, "5"],
      [`${token}-limit`, "7"],
      ["retry-after", "9"],
      ["retry-after", `${year}`]
    ],
    within: soon
  },
  {
    name: "a date in 1970",
    headers: [
      ["date", "Thu, 01 Jan 1970 00:00:00 GMT"],
      [`${token}-remaining`, "0"]
    ],
    within: soon
  },
  {
    name: "a date in 2100",
    headers: [
      ["date", "Fri, 01 Jan 2100 00:00:00 GMT"],
      [`${token}-remaining`, "0"]
    ],
    within: soon
  },
  {
    name: "other families' nonsense",
    headers: [
      ["x-ratelimit-limit-tokens", "1e5"],
      ["x-ratelimit-remaining-tokens", "-0"],
      ["x-ratelimit-reset-tokens", `${"1m".repeat(3_000)}`],
      ["ratelimit", `"a";r=0;t=${year}, `.repeat(100)],
      ["ratelimit-policy", `"a";q=0;w=60, `.repeat(100)]
    ],
    within: soon
  },
  {
    name: "names of the prototype",
    headers: [
      ["__proto__", "1"],
      ["constructor", "1"],
      ["ratelimit", `"__proto__";r=0`],
      ["ratelimit-policy", `"__proto__";q=1;w=60`]
    ],
    within: slow
  }
]

export const limits: Limits.Limits = {
  requests: { perMinute: 1_000 },
  inputTokens: { perMinute: 2_000_000 },
  outputTokens: { perMinute: 400_000 }
}

export const answer = JSON.stringify(message(1_000, 20))
const rejection = JSON.stringify({ type: "error", error: { type: "rate_limit_error", message: "no" } })

/** The headers of a provider with our limits that nobody else uses. */
const normal: Pairs = [
  [`${request}-limit`, "1000"],
  [`${request}-remaining`, "1000"],
  [`${token}-limit`, "2000000"],
  [`${token}-remaining`, "2000000"],
  ["anthropic-ratelimit-output-tokens-limit", "400000"],
  ["anthropic-ratelimit-output-tokens-remaining", "400000"]
]

/** Answers with hostile headers while `hostile()` is true, and then with normal ones. */
const handler =
  (status: number, headers: Pairs, hostile: () => boolean): Handler =>
  (_, response) => {
    const bad = hostile()
    response.sendDate = false
    response.writeHead(
      bad ? status : 200,
      [["content-type", "application/json"], ...(bad ? headers : normal)].flat() as Array<string>
    )
    response.end(bad && status !== 200 ? rejection : answer)
  }

const ask = LlmClient.create({
  model: "claude-sonnet-5",
  max_tokens: 100,
  messages: [{ role: "user", content: "x".repeat(3_000) }]
})

/** Makes one call; returns how it ended and how long it took. */
export const timed = Effect.fnUntraced(function* (server: TestServer, most: number, quiet: Setting["quiet"]) {
  const start = yield* Clock.currentTimeMillis
  const fiber = yield* Effect.forkChild(ask)
  let exit: Exit.Exit<unknown, unknown> | undefined
  while (true) {
    yield* quiet(server)
    exit = fiber.pollUnsafe()
    const millis = (yield* Clock.currentTimeMillis) - start
    if (exit !== undefined) return { exit, millis }
    if (millis > most) {
      const { pools } = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
      yield* Fiber.interrupt(fiber)
      assert.fail(`waits for more than ${most} ms: ${JSON.stringify(pools)}`)
    }
    yield* TestClock.adjust(Math.max(5_000, most / 50))
  }
})

/** Every number in a status is finite. */
const assertFinite = (value: unknown, path: string): void => {
  if (typeof value === "number") assert.isTrue(Number.isFinite(value), `${path} is ${value}`)
  else if (typeof value === "object" && value !== null) {
    for (const [key, part] of Object.entries(value)) {
      if (key !== "allowed") assertFinite(part, `${path}.${key}`)
    }
  }
}

const checkStatus = Effect.gen(function* () {
  const { pools } = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
  assertFinite(pools, "pools")
  for (const { dimensions } of Object.values(pools)) {
    for (const { capacity, level, limitPerSecond, perSecond } of Object.values(dimensions)) {
      const told = JSON.stringify(dimensions)
      assert.isTrue(level <= capacity && capacity > 0 && perSecond > 0 && perSecond <= limitPerSecond, told)
    }
  }
  return pools
})

/** Runs one case, for a status of the answers, the limits, and a setting. */
export const run = Effect.fnUntraced(function* (
  one: Case,
  status: number,
  given: Limits.Limits | undefined,
  { quiet, stores }: Setting
) {
  let hostile = true
  let left = 3
  const server = yield* serve(handler(status, one.headers, () => hostile && left-- > 0))
  const client = LlmClient.layer({ apiKey: Redacted.make("key"), baseUrl: server.url })
  const processes = yield* Effect.forEach(stores, (store) =>
    Layer.build(Layer.fresh(Layer.provideMerge(client, Layer.provide(Budget.layer({ limits: given }), store))))
  )
  const [first, last] = [processes[0]!, processes.at(-1)!]
  const callFrom = (process: typeof first, within: number) =>
    Effect.provideContext(timed(server, within, quiet), process)
  const checkAll = Effect.forEach(processes, (process) => Effect.provideContext(checkStatus, process))
  const refused: Array<string> = []
  for (let n = 0; n < 3; n++) {
    const { exit } = yield* callFrom(first, one.within)
    yield* checkAll
    if (exit._tag === "Failure") refused.push(String(exit.cause))
  }
  if (one.refuses === true)
    for (const reason of refused) assert.match(reason, /EstimateTooLarge|RateLimited|SpendLimited|WaitTooLong/)
  else assert.deepStrictEqual(refused, [])
  // Normal answers put it right, at the latest after the hour that a header is believed.
  hostile = false
  if (one.refuses === true) yield* TestClock.adjust(hour)
  for (let n = 0; n < 3; n++) {
    const { exit } = yield* callFrom(last, one.within)
    assert.strictEqual(exit._tag, "Success", String(exit))
  }
  yield* TestClock.adjust(10 * minute)
  // A process learns what others know with its next call.
  for (const process of processes) yield* callFrom(process, soon)
  for (const pools of yield* checkAll) {
    const [pool] = Object.values(pools)
    assert.isUndefined(pool!.pause)
    for (const [dimension, minutes] of [
      ["requests", 1_000],
      ["inputTokens", 2_000_000],
      ["outputTokens", 400_000]
    ] as const) {
      const { capacity, level, limitPerSecond } = pool!.dimensions[dimension]!
      assert.closeTo(limitPerSecond * 60, minutes, minutes * 1e-9)
      assert.isAbove(level, 0.9 * capacity)
    }
  }
})
