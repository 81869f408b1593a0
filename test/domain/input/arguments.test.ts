import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Accounting from "floodgate/Accounting"
import * as Agents from "floodgate/Agents"
import * as Floodgate from "floodgate/anthropic"
import * as Breaker from "floodgate/breaker"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Forecast from "floodgate/Forecast"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import * as Presets from "floodgate/Presets"
import { create } from "floodgate/promise"
import * as FloodgateRedis from "@floodgate/redis"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import { ProviderSim } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"
import { complaint } from "../../support/complaint.ts"
import { MapStore } from "../../support/store.ts"

/** Arguments as no compiler lets them through. */
const wrong = <A>(value: unknown): A => value as A

const agents = (options: unknown) => Agents.run([{ key: "a", effect: Effect.void }], wrong(options))
const budget = (limits: unknown) => Budget.make({ limits: wrong(limits) })
const call = (options: unknown) =>
  LlmClient.create({ model: "m", max_tokens: 1, messages: [{ role: "user", content: "x" }] }, wrong(options))
const forecast = (call: object, options: object = {}) =>
  Forecast.make([{ name: "a", calls: [{ inputTokens: 1, outputTokens: 1, ...call }] }], { limits: {}, ...options })
const reserve = (estimate: Limits.Estimate, options: Budget.ReserveOptions = {}) =>
  Effect.flatMap(Budget.TokenBudget, (budget) => budget.reserve(estimate, options))
const share = (options: BudgetStore.Options) => BudgetStore.layer(new MapStore(), options)
const apiKey = Redacted.make("a key of some length")
const price = { input: 1, output: 1 }

type Service = Budget.TokenBudget["Service"]

/** What a budget and a reservation are asked with an option that makes no sense. */
const operations: ReadonlyArray<readonly [string, (budget: Service) => Effect.Effect<unknown, unknown, Scope.Scope>]> =
  [
    ["Budget.pause: duration", (budget) => budget.pause({ duration: wrong("5 sec") })],
    ["Budget.resize: concurrency", (budget) => budget.resize({ concurrency: 0 })],
    ["Budget.resize: limits.tokens.perMinute", (budget) => budget.resize({ limits: { tokens: { perMinute: -1 } } })],
    ["Budget.reserve: maxWait", (budget) => budget.reserve({ tokens: 1 }, { maxWait: wrong("5 sec") })],
    [
      "Reservation.fail: retryAfter",
      (budget) =>
        Effect.flatMap(budget.reserve({ tokens: 1 }), (reservation) =>
          reservation.fail({ reason: "rateLimit", retryAfter: wrong("5 sec") })
        )
    ]
  ]

/** Each option, and what is wrong with it. */
const rows: ReadonlyArray<readonly [option: string, ...make: ReadonlyArray<() => unknown>]> = [
  [
    "Accounting.bedrockRuntime: burndown",
    ...[0.5, NaN].map((burndown) => () => Accounting.bedrockRuntime({ burndown }))
  ],
  ["Agents.run: cap.tokens", ...[0, -1, NaN].map((tokens) => () => agents({ cap: { tokens } }))],
  ["Agents.run: cap.calls", () => agents({ cap: { calls: 0 } })],
  ["Agents.run: cap.time", () => agents({ cap: { time: 0 } }), () => agents({ cap: { time: "5 sec" } })],
  // With a concurrency of NaN it ran for ever.
  ["Agents.run: concurrency", ...[0, -1, NaN, 1.5].map((concurrency) => () => agents({ concurrency }))],
  ["LlmClient.layer: timeout", () => LlmClient.layer({ apiKey, timeout: 0 })],
  ["LlmClient.layer: idleTimeout", () => LlmClient.layer({ apiKey, idleTimeout: NaN })],
  // With a time of 0 a breaker never opened.
  [
    "Breaker.layer: openFor",
    ...[0, -5, NaN, "a while"].map((openFor) => () => Breaker.layer({ openFor: wrong(openFor) }))
  ],
  ["Budget.make: concurrency", () => Budget.make({ concurrency: 0 })],
  ["Budget.make: maxQueued", () => Budget.make({ maxQueued: -1 })],
  ["Budget.reserve: weight", ...[0, -1, NaN, Infinity].map((weight) => () => reserve({ tokens: 1 }, { weight }))],
  ["Budget.reserve: priority", ...[NaN, Infinity].map((priority) => () => reserve({ tokens: 1 }, { priority }))],
  ...operations.map(
    ([option, operation]) => [option, () => Effect.flatMap(Budget.TokenBudget, (budget) => operation(budget))] as const
  ),
  ["BudgetStore.layer: lease", () => share({ lease: 0 })],
  ["BudgetStore.layer: timeout", () => share({ timeout: NaN })],
  ["BudgetStore.layer: degradeFor", () => share({ degradeFor: -1 })],
  ["BudgetStore.layer: whenAway.wait", () => share({ whenAway: { wait: Infinity } })],
  ["LlmClient.create: timeout", () => call({ timeout: -1 }), () => call({ timeout: "5 sec" })],
  ["LlmClient.create: maxWait", () => call({ maxWait: "5 sec" })],
  ...Limits.Dimension.literals.map(
    (dimension) =>
      [
        `Budget.reserve: ${dimension}`,
        ...[-1, NaN, Infinity, 1e308].map((bad) => () => reserve({ [dimension]: bad }))
      ] as const
  ),
  ["FloodgateAnthropic.make: idleTimeout", () => Floodgate.make({ idleTimeout: 0 })],
  ["Floodgate.create: idleTimeoutSeconds", () => create({ idleTimeoutSeconds: NaN })],
  ["Floodgate.create: retry.baseSeconds", () => create({ retry: { baseSeconds: -2 } })],
  ["Floodgate.create: callOptions.maxWaitSeconds", () => create({ callOptions: { maxWaitSeconds: -1 } })],
  ["Floodgate.create: redis", () => create({ redis: "localhost:6379" })],
  ["Forecast.make: concurrency", ...[0, 1.5].map((concurrency) => () => forecast({}, { concurrency }))],
  ...["inputTokens", "outputTokens", "reservedOutputTokens"].map(
    (name) =>
      [
        `Forecast.make: workload[0].calls[0].${name}`,
        ...[-7, NaN, Infinity, "5"].map((bad) => () => forecast({ [name]: bad }))
      ] as const
  ),
  ["Forecast.make: latency.baseMillis", () => forecast({}, { latency: { baseMillis: -1 } })],
  [
    "Forecast.uniform: agents",
    () => Forecast.uniform({ agents: 0, calls: 1, first: { inputTokens: 1, outputTokens: 1 } })
  ],
  ["Gateway.make: port", () => Gateway.make({ port: -1 })],
  // Others can reach the host, and a short token is guessed.
  ["Gateway.make: token", () => Gateway.make({ host: "0.0.0.0" }), () => Gateway.make({ token: "short" })],
  [
    "Gateway.make: upstreams",
    ...[{}, { metrics: "https://a.test" }, { v1: "https://a.test" }, { chat: "https://a.test" }].map(
      (upstreams) => () => Gateway.make({ upstreams })
    )
  ],
  [
    "Gateway.make: upstreams.own",
    ...["file:///etc", "127.0.0.1:8787"].map((own) => () => Gateway.make({ upstreams: { own } }))
  ],
  ["Gateway.make: rules[1].cap.per", () => Gateway.make({ rules: [{}, { cap: { dollars: 1, per: "dya" as never } }] })],
  ["Gateway.make: rules[0].weight", () => Gateway.make({ rules: [{ weight: 0 }] })],
  ["Gateway.make: rules[0].capPerKey.dollars", () => Gateway.make({ rules: [{ capPerKey: { dollars: 0 } }] })],
  ["Budget.make: limits.pools.m.tokens.total", () => budget({ pools: { m: { tokens: { total: 0 } } } })],
  ...(["maxHold", "silence", "keepAlive", "timeout", "drain"] as const).map(
    (name) =>
      [
        `Gateway.make: ${name}`,
        ...[0, -1, NaN, Infinity, 1e300, 1e-9, "2 days", "soon"].map((bad) => () => Gateway.make({ [name]: bad }))
      ] as const
  ),
  // A text of Node has at most 536,870,888 characters.
  ...(["maxBodyBytes", "maxHeldBytes", "maxConnections"] as const).map(
    (name) =>
      [
        `Gateway.make: ${name}`,
        ...[0, -1, 0.5, NaN, Infinity, 1e308, 2 ** 53, "5"].map((bad) => () => Gateway.make({ [name]: bad }))
      ] as const
  ),
  ["Gateway.make: maxBodyBytes", () => Gateway.make({ maxBodyBytes: 536_870_889 })],
  ["Budget.make: limits", ...[null, 7, "2M", { inputToken: { perMinute: 1 } }].map((limits) => () => budget(limits))],
  [
    "Budget.make: limits.tokens",
    ...[null, 2_000_000, {}, { perMinutes: 60 }, { perMinute: 60, bursts: 5 }, { perMinute: 1, perSecond: 1 }].map(
      (tokens) => () => budget({ tokens })
    )
  ],
  ...["perSecond", "perMinute", "total"].map(
    (rate) =>
      [
        `Budget.make: limits.tokens.${rate}`,
        // A text of digits was accepted, and made sums of texts.
        ...[0, -1, NaN, Infinity, 1e308, "2000000"].map((bad) => () => budget({ tokens: { [rate]: bad } }))
      ] as const
  ),
  [
    "Budget.make: limits.tokens.burst",
    ...[0, -1, NaN].map((burst) => () => budget({ tokens: { perMinute: 10, burst } }))
  ],
  ["Budget.make: limits.tokens.share", () => budget({ tokens: { share: 1.5 } })],
  [
    "Governor.layer: prices.m.output",
    () => Governor.layer({ prices: { m: { ...price, output: -1 } } }),
    () => Governor.layer({ prices: { m: wrong({ input: 1 }) } })
  ],
  ["Governor.layer: prices.m.cacheRead", () => Governor.layer({ prices: { m: { ...price, cacheRead: NaN } } })],
  [
    "Governor.layer: prices.m.long.above",
    () => Governor.layer({ prices: { m: { ...price, long: { ...price, above: Infinity } } } })
  ],
  ["ProviderServer.make: timeScale", () => ProviderServer.make({ timeScale: 0 })],
  [
    "ProviderServer.make: maxBodyBytes",
    ...[NaN, -1].map((bytes) => () => ProviderServer.make({ maxBodyBytes: bytes }))
  ],
  // Node would listen on every address.
  ["ProviderServer.make: host", () => ProviderServer.make({ host: "" })],
  [
    "ProviderSim.layer: limits",
    ...[null, Presets.anthropic.start].map((bad) => () => ProviderSim.layer({ limits: wrong(bad) }))
  ],
  [
    "ProviderSim.layer: limits.tokens.window",
    () => ProviderSim.layer({ limits: { tokens: { perMinute: 1, window: wrong("slidng") } } })
  ],
  ["ProviderSim.layer: faults[1].kind", () => ProviderSim.layer({ faults: [{ kind: "500" }, { kind: wrong("503") }] })],
  [
    "ProviderSim.layer: faults[0].retryAfterMillis",
    () => ProviderSim.layer({ faults: [{ kind: "cut", retryAfterMillis: 1_000 }] })
  ],
  ["ProviderSim.layer: cachedShare", () => ProviderSim.layer({ cachedShare: 2 })],
  [
    "Retry.make: base",
    () => Retry.make({ base: wrong("soon") }),
    () => Retry.make({ backoff: Schedule.forever, base: 1 })
  ],
  ["Retry.make: factor", () => Retry.make({ factor: 0.9 })],
  ["Retry.make: cap", () => Retry.make({ cap: 0 })],
  ["Retry.make: attempts", () => Retry.make({ attempts: 1.5 })],
  ["Retry.make: jitter", () => Retry.make({ jitter: wrong("some") })],
  ["Retry.make: maxElapsed", () => Retry.make({ maxElapsed: 0 })],
  ["Retry.layerBudget: ratio", () => Retry.layerBudget({ ratio: -1 })],
  ["Retry.withDeadline", () => Retry.withDeadline(Effect.void, wrong("5 sec"))],
  ["Spending.make: dollars", ...[0, NaN].map((dollars) => () => Spending.make("x", { dollars }))],
  ["Spending.make: per", ...["never", Infinity].map((per) => () => Spending.make("x", { dollars: 1, per: wrong(per) }))]
]

describe("an invalid argument", () => {
  it.effect("is not quoted if it may contain a password", () =>
    Effect.gen(function* () {
      const url = "redis:secret@127.0.0.1"
      for (const make of [() => create({ redis: url }), () => FloodgateRedis.layerStoreUrl({ url: `//${url}` })]) {
        assert.notInclude(yield* complaint(make), "secret")
      }
    })
  )

  it.live("is a RangeError in one line that names the option, what is expected and what was given", () =>
    Effect.gen(function* () {
      for (const [option, ...makes] of rows) {
        for (const make of makes) {
          const text = yield* complaint(make)
          assert.match(
            text,
            /^RangeError: [^\n]+: (expected [^\n]+, got [^\n]+|unknown option [^\n]+)$/,
            `${option}, by ${make}`
          )
          assert.isTrue(text.startsWith(`RangeError: ${option}: `), `${option}: ${text}`)
        }
      }
    })
  )
})

it.effect("an operation of a budget throws nothing while it is made: its error is a defect", () =>
  Effect.gen(function* () {
    // Regression: `resize` and `pause` threw before there was an effect, where `catchCause` sees nothing.
    const budget = yield* Budget.make()
    for (const [option, operation] of operations) {
      const exit = yield* Effect.exit(operation(budget))
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, RangeError, option)
      assert.isTrue(Exit.hasDies(exit), option)
    }
  }).pipe(Effect.scoped)
)

it.effect("under a deadline that has passed nothing is sent, although there is room", () =>
  Effect.gen(function* () {
    const sim = yield* ProviderSim.ProviderSim
    const client = yield* LlmClient.LlmClient
    const params = { model: "m", max_tokens: 1, messages: [{ role: "user" as const, content: "x" }] }
    for (const after of [-1, "-5 seconds"] as const) {
      const { reason } = yield* Effect.flip(Retry.withDeadline(client.create(params), after))
      assert.include(reason, { _tag: "DeadlineMissed", isRetryable: false })
    }
    assert.strictEqual((yield* sim.stats).requests, 0)
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider().pipe(Layer.provide(Budget.layer()), Layer.provideMerge(ProviderSim.layer()))
    )
  )
)

it.effect("a negative wait counts as zero, because it may be the rest of a time that has passed", () =>
  Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const params = { model: "m", max_tokens: 1, messages: [{ role: "user" as const, content: "x" }] }
    yield* Budget.consume(100)
    const late = yield* Effect.flip(client.create(params, { maxWait: -1 }))
    assert.deepInclude(late.reason, { _tag: "WaitTooLong", maxWait: Duration.zero })
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider().pipe(
        Layer.provideMerge(Budget.layer({ limits: { tokens: { perSecond: 1, burst: 100 } } })),
        Layer.provide(ProviderSim.layer())
      )
    )
  )
)
