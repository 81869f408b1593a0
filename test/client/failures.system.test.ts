import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CircuitBreaker from "effect/persistence/CircuitBreaker"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Breaker from "floodgate/breaker"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import {
  answer,
  content,
  ended,
  error,
  event,
  type Handler,
  send,
  serve,
  started,
  stream
} from "../support/httpProvider.ts"

// These tests use real HTTP on the loopback, through the official SDK, and so `it.live`. The timeouts under test take 600 ms
// each. All other timeouts are a minute, for busy machines.

const quotas: Limits.Limits = {
  requests: { total: 1_000 },
  inputTokens: { total: 100_000 },
  outputTokens: { total: 100_000 }
}

const params = { model: "m", max_tokens: 500, messages: [{ role: "user" as const, content: "Hello" }] }
/** Reserves 1,000 tokens of input and 500 of output. */
const known = { inputTokens: 1_000 }

const attemptsOf = (attempts: number) => Retry.make({ base: "1 millis", cap: "1 millis", jitter: "none", attempts })

const patient = 60_000
const impatient = 600

const client = (url: string, attempts: number, timeout = patient) =>
  LlmClient.layer({
    apiKey: Redacted.make("test"),
    baseUrl: url,
    timeout,
    idleTimeout: timeout,
    retry: attemptsOf(attempts)
  })

const ask = (streamed: boolean) =>
  streamed ? Stream.runDrain(LlmClient.stream(params, known)) : Effect.asVoid(LlmClient.create(params, known))

/** An attempt that fails: its error, and its effects. */
const judge = (failure: Handler, streamed: boolean, timeout = patient) =>
  Effect.gen(function* () {
    const { close, url } = yield* serve(() => failure)
    if (failure === refuse) yield* close
    // A pause may be over before its status is read; its event stays.
    let pause: string | undefined
    const observe = (event: Events.Event): void => {
      if (event.type === "pause") pause = event.reason
    }
    return yield* Effect.gen(function* () {
      const error = yield* Effect.flip(ask(streamed))
      assert.instanceOf(error, LlmError)
      const budget = yield* Budget.TokenBudget
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const { allowed, dimensions, inFlight } = (yield* budget.status).pools.default!
      assert.deepStrictEqual([inFlight, allowed], [0, 8])
      return {
        error,
        used: [
          1_000 - dimensions.requests!.level,
          100_000 - dimensions.inputTokens!.level,
          100_000 - dimensions.outputTokens!.level
        ],
        pause,
        breaker: (yield* breaker.state("default"))._tag
      }
    }).pipe(
      Effect.provide(
        client(url, 1, timeout).pipe(
          Layer.provide(Breaker.layerStore({ failures: 1, openFor: "1 minute" })),
          // Another breaker over the same store, to read its state.
          Layer.provideMerge(
            CircuitBreaker.layer({ tripPolicy: CircuitBreaker.consecutive(1), openDuration: "1 minute" })
          ),
          Layer.provide(CircuitBreaker.layerStoreMemory()),
          Layer.provideMerge(Budget.layer({ limits: quotas, concurrency: 8 })),
          Layer.provide(Layer.succeed(Events.Observer, observe))
        )
      )
    )
  })

/** The requests that arrived for a call that fails once, and its outcome. */
const persist = (failure: Handler, streamed: boolean, timeout: number) =>
  Effect.gen(function* () {
    const success = streamed ? stream(started + content + ended) : answer
    const { seen, url } = yield* serve((attempt) => (attempt === 1 ? failure : success))
    const exit = yield* Effect.exit(Effect.provide(ask(streamed), client(url, 2, timeout)))
    return [seen.attempts, exit._tag] as const
  }).pipe(Effect.provide(Layer.mergeAll(Budget.layerUnlimited, Retry.layerBudget({ minPerSecond: Infinity }))))

/** A server that does not exist. */
const refuse: Handler = (response) => response.destroy()

interface Row {
  readonly is: string
  readonly code?: string
  readonly status?: number
  readonly retried?: boolean
  /** Requests, input and output that the provider counts. @default the request */
  readonly used?: readonly [requests: number, input: number, output: number]
  /** Why all calls pause. A single failure delays only its own call. */
  readonly pause?: "ramp"
  /** @default false */
  readonly counts?: boolean
  /** Whether it fails only by silence. */
  readonly silent?: boolean
}

const nothing = [0, 0, 0] as const
const input = [1, 1_000, 0] as const
/** The usage in `message_start`. */
const begun = [1, 25, 1] as const
/** It is followed by 27 characters, about ten tokens. */
const partly = [1, 25, 11] as const

const html = (status: number): Handler => send(status, "<html>Bad gateway</html>", { "content-type": "text/html" })
const soon = { "retry-after": "0.05" }

const failures: ReadonlyArray<readonly [string, Handler, Row]> = [
  ["400 invalid_request_error", error(400, "invalid_request_error"), { is: "InvalidRequest" }],
  [
    "400 for a spend limit of one's own",
    error(400, "invalid_request_error", {}, undefined, "You have reached your specified API usage limits."),
    { is: "InvalidRequest" }
  ],
  ["401 authentication_error", error(401, "authentication_error"), { is: "AccessDenied" }],
  [
    "402 billing_error",
    error(402, "billing_error", {}, "linked_organization_billing_unavailable"),
    { is: "SpendLimited", code: "linked_organization_billing_unavailable", used: nothing }
  ],
  [
    "402 for a linked spend limit",
    error(402, "billing_error", {}, "linked_organization_spend_limit_reached"),
    { is: "SpendLimited", used: nothing }
  ],
  ["403 permission_error", error(403, "permission_error"), { is: "AccessDenied" }],
  ["404 not_found_error", error(404, "not_found_error"), { is: "InvalidRequest" }],
  ["408 without a body", send(408, ""), { is: "TimedOut", retried: true, used: input, counts: true }],
  ["409 conflict_error", error(409, "conflict_error"), { is: "InvalidRequest", retried: true }],
  ["413 request_too_large", error(413, "request_too_large"), { is: "InvalidRequest" }],
  ["413 from a proxy", html(413), { is: "InvalidRequest" }],
  ["422", error(422, "invalid_request_error"), { is: "InvalidRequest" }],
  ["429 rate_limit_error", error(429, "rate_limit_error", soon), { is: "RateLimited", retried: true, used: nothing }],
  ["429 without retry-after", error(429, "rate_limit_error"), { is: "RateLimited", retried: true, used: nothing }],
  [
    "429 ramp_limit_exceeded",
    // Long enough for a busy machine: a pause that is over before it is recorded is not reported.
    error(429, "rate_limit_error", { "retry-after": "1" }, "ramp_limit_exceeded"),
    { is: "RampLimited", code: "ramp_limit_exceeded", retried: true, used: nothing, pause: "ramp" }
  ],
  [
    "429 enforced_spend_limit_reached",
    error(429, "rate_limit_error", { "x-should-retry": "true" }, "enforced_spend_limit_reached"),
    { is: "SpendLimited", used: nothing }
  ],
  [
    "429 contract_spend_limit_reached",
    error(429, "rate_limit_error", soon, "contract_spend_limit_reached"),
    { is: "SpendLimited", used: nothing }
  ],
  ["500 api_error", error(500, "api_error"), { is: "ServerFailed", retried: true, counts: true }],
  ["500 of a new type", error(500, "strange_error"), { is: "ServerFailed", retried: true, counts: true }],
  ["502 from a proxy", html(502), { is: "ServerFailed", retried: true, counts: true }],
  [
    "503 cmek_key_unreachable",
    error(503, "api_error", {}, "cmek_key_unreachable"),
    { is: "ServerFailed", code: "cmek_key_unreachable", retried: true, counts: true }
  ],
  ["503", error(503, "overloaded_error"), { is: "Overloaded", retried: true, counts: true }],
  ["504 timeout_error", error(504, "timeout_error"), { is: "TimedOut", retried: true, used: input, counts: true }],
  ["529 overloaded_error", error(529, "overloaded_error"), { is: "Overloaded", retried: true, counts: true }],
  [
    "529 compaction_unavailable",
    error(529, "overloaded_error", {}, "compaction_unavailable"),
    { is: "Overloaded", code: "compaction_unavailable", retried: true, counts: true }
  ],
  ["no answer in time", () => {}, { is: "TimedOut", retried: true, used: input, counts: true, silent: true }],
  [
    "a connection lost before the answer",
    (response) => response.destroy(),
    { is: "ConnectionFailed", retried: true, used: input, counts: true }
  ]
]

const whole: ReadonlyArray<readonly [string, Handler, Row]> = [
  ["200 with HTML", html(200), { is: "MalformedResponse", used: [1, 1_000, 500] }],
  ["200 with half a body", send(200, `{"type":"message"`), { is: "MalformedResponse", used: [1, 1_000, 500] }]
]

const errorEvent = (type: string): string => event("error", { error: { type, message: "Overloaded" } })

const streams: ReadonlyArray<readonly [string, Handler, Row]> = [
  ["200 with HTML", html(200), { is: "MalformedResponse", used: [1, 1_000, 500] }],
  [
    "overloaded_error before anything",
    stream(errorEvent("overloaded_error")),
    { is: "Overloaded", code: "overloaded_error", retried: true, counts: true }
  ],
  [
    "overloaded_error before content",
    stream(started + errorEvent("overloaded_error")),
    { is: "Overloaded", code: "overloaded_error", retried: true, used: begun, counts: true }
  ],
  [
    "overloaded_error after content",
    stream(started + content + errorEvent("overloaded_error")),
    { is: "StreamInterrupted", code: "overloaded_error", used: partly }
  ],
  [
    "rate_limit_error before content",
    stream(started + errorEvent("rate_limit_error")),
    { is: "RateLimited", code: "rate_limit_error", retried: true, used: begun }
  ],
  [
    "api_error after content",
    stream(started + content + errorEvent("api_error")),
    { is: "StreamInterrupted", code: "api_error", used: partly }
  ],
  [
    "a socket that breaks before content",
    stream(started, "break"),
    { is: "StreamInterrupted", retried: true, used: begun, counts: true }
  ],
  ["a socket that breaks after content", stream(started + content, "break"), { is: "StreamInterrupted", used: partly }],
  ["an end before content", stream(started), { is: "StreamInterrupted", retried: true, used: begun, counts: true }],
  ["an end without message_stop", stream(started + content), { is: "StreamInterrupted", used: partly }],
  [
    "a silence before content",
    stream(started, "hang"),
    { is: "StreamInterrupted", retried: true, used: begun, counts: true, silent: true }
  ],
  [
    "a silence after content",
    stream(started + content, "hang"),
    { is: "StreamInterrupted", used: partly, silent: true }
  ],
  [
    "an event that is no JSON",
    stream(`${started}event: content_block_delta\ndata: {"type":\n\n`),
    { is: "MalformedResponse", used: begun }
  ]
]

const check = (failure: Handler, row: Row, streamed: boolean) =>
  Effect.gen(function* () {
    const timeout = row.silent === true ? impatient : patient
    const { breaker, error, pause, used } = yield* judge(failure, streamed, timeout)
    assert.deepStrictEqual(
      {
        is: error.reason._tag,
        used,
        pause,
        breaker
      },
      {
        is: row.is,
        used: [...(row.used ?? ([1, 0, 0] as const))],
        pause: row.pause,
        breaker: row.counts === true ? "Open" : "Closed"
      }
    )
    if (row.code !== undefined) assert.strictEqual(error.reason.code, row.code)
    const [attempts, outcome] = yield* persist(failure, streamed, timeout)
    assert.deepStrictEqual([attempts, outcome], row.retried === true ? [2, "Success"] : [1, "Failure"])
  })

describe("failures over real HTTP", () => {
  describe("create", () => {
    for (const [what, failure, row] of [...failures, ...whole]) {
      it.live(`${what}: ${row.is}`, () => check(failure, row, false))
    }

    it.live("a refused connection: ConnectionFailed, and nothing was used", () =>
      Effect.gen(function* () {
        const { breaker, error, used } = yield* judge(refuse, false)
        assert.deepStrictEqual([error.reason._tag, used, breaker], ["ConnectionFailed", [0, 0, 0], "Open"])
        assert.isTrue(error.isRetryable)
      })
    )

    it.live("a retry-after of hours fails the call at once, with the time", () =>
      Effect.gen(function* () {
        const { seen, url } = yield* serve(() => error(429, "rate_limit_error", { "retry-after": "18000" }))
        const failed = yield* Effect.flip(Effect.provide(ask(false), client(url, 5)))
        assert.instanceOf(failed, LlmError)
        assert.deepStrictEqual([failed.reason._tag, failed.stoppedBy, seen.attempts], ["RateLimited", "deadline", 1])
      }).pipe(Effect.provide(Layer.mergeAll(Budget.layerUnlimited, Retry.layerBudget({ minPerSecond: Infinity }))))
    )
  })

  describe("stream", () => {
    for (const [what, failure, row] of [...failures, ...streams]) {
      it.live(`${what}: ${row.is}`, () => check(failure, row, true))
    }

    it.live("pings and events of unknown types are ignored", () =>
      Effect.gen(function* () {
        const { url } = yield* serve(() =>
          stream(started + event("new_event", { any: 1 }) + content + event("ping") + ended)
        )
        const events = yield* Effect.provide(Stream.runCollect(LlmClient.stream(params)), client(url, 1))
        assert.deepStrictEqual(
          events.map(({ type }): string => type),
          [
            "message_start",
            "new_event",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
          ]
        )
      }).pipe(Effect.provide(Budget.layerUnlimited))
    )
  })
})
