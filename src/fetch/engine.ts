/**
 * Governed HTTP calls: a request of a known protocol, and a way to send it, become an answer that was admitted, retried,
 * settled and learned from. It knows neither `fetch` nor a server; both are thin over it.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Accounting from "../Accounting.ts"
import { BudgetError } from "../Budget.ts"
import { FailedAttempt } from "../governor/failure.ts"
import { conclude, type Conclusion, inScope } from "../governor/stream.ts"
import * as Governor from "../Governor.ts"
import { durationOf } from "../input/arguments.ts"
import { isLlmError, LlmError, type LlmErrorReason, MalformedResponse } from "../LlmError.ts"
import { anthropic } from "../protocol/anthropic.ts"
import { requestIdOf } from "../protocol/errors.ts"
import { gemini } from "../protocol/gemini.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import { parseJson } from "../protocol/json.ts"
import { infoOf, longestWaitMillis } from "../protocol/messages.ts"
import { openaiChat } from "../protocol/openaiChat.ts"
import { openaiResponses } from "../protocol/openaiResponses.ts"
import { type Description, match, type Match, type Protocol, usageOf } from "../protocol/protocol.ts"
import type { Refusal, RefusalResponse } from "../protocol/refusal.ts"
import * as SdkErrors from "../signals/sdkErrors.ts"
import { makeAccounts } from "./account.ts"
import { bound, type Connection, type Patience } from "./silence.ts"
import { type Source, watch } from "./stream.ts"

export type { Source } from "./stream.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * A request, as the callbacks of {@link EngineOptions} see it.
 *
 * @category models
 * @since 0.2.0
 */
export interface CallRequest {
  readonly url: string
  /** The protocol by its name, such as `openai-chat`. */
  readonly protocol: string
  readonly model: string
  /** The agent that the request names, in a header or in its body. */
  readonly agent: string | undefined
  /** Looks a header up by its name in lower case. */
  readonly header: HeaderReader
  /** The body as parsed JSON. */
  readonly body: unknown
}

/**
 * How requests are governed, whatever sends them.
 *
 * @category options
 * @since 0.2.0
 */
export interface EngineOptions {
  /**
   * How calls are admitted and bounded: agent, priority, `maxWait`, `timeout`... for all, or by the request.
   *
   * @default no bounds; the agent is named by the header `x-floodgate-agent`, by Claude Code's session, or by the body:
   * `metadata.user_id`, `safety_identifier`, `user`
   */
  readonly callOptions?: Governor.CallOptions | ((request: CallRequest) => Governor.CallOptions) | undefined
  /**
   * The protocols that are recognised, the first that matches first. Put one of your own before the others.
   *
   * @default Anthropic Messages, OpenAI Chat Completions and Responses, Gemini
   */
  readonly protocols?: ReadonlyArray<Protocol> | undefined
  /**
   * How a provider counts, for all requests or by the request; undefined leaves it to the default.
   *
   * @default by the route: Anthropic, Vertex AI, Bedrock (with a burndown rate of 5), OpenAI, Azure, Gemini
   */
  readonly accounting?:
    | Accounting.Accounting
    | ((request: CallRequest) => Accounting.Accounting | undefined)
    | undefined
  /**
   * The account whose limits a request counts towards; undefined leaves it to the default. Two accounts never share a pool. An
   * empty one is none: such calls share the limits with those of `LlmClient` over the same budget.
   *
   * @default the host, with a hash of the credential. When a response names the organisation, its other credentials join.
   */
  readonly account?: ((request: CallRequest) => string | undefined) | undefined
  /**
   * Whether usage is requested in streams of Chat Completions whose caller does not; the chunk with it is taken out again.
   * Without it such calls keep their estimates. Switch it off for a service that rejects `stream_options`.
   *
   * @default true
   */
  readonly streamUsage?: boolean | undefined
  /**
   * The longest silence within a stream. After it a call without content is retried, and one with content breaks off.
   *
   * @default "1 minute" where the provider sends pings (Anthropic), else "5 minutes", as Node's `fetch` has it
   */
  readonly idleTimeout?: Duration.Input | undefined
}

/** Is told what a call used, where that is known. */
export type Used = (actual: Accounting.Actual | undefined) => void

/** What a way in decides for its users. */
export interface Settings extends EngineOptions {
  /** The provider's name for spans. @default the protocol's */
  readonly name?: string | undefined
  /** What a body fails with that was silent for too long. @default {@link Stalled} */
  readonly stalled?: ((silence: string) => Effect.Effect<unknown>) | undefined
  /**
   * Gives for a request who is to be told what its call used, once it has succeeded. That may be after a long stream, so what it
   * gives should not keep the request.
   *
   * @default nobody
   */
  readonly used?: ((request: CallRequest) => Used) | undefined
}

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** A request, as its transport has it. */
export interface Incoming {
  /** The URL that it is sent to, which decides the account. */
  readonly url: string
  readonly header: HeaderReader
  readonly body: string
  /** The parsed body, where the transport has it. @default parsed here */
  readonly parsed?: unknown
}

/** A request that is governed. */
export interface Planned {
  readonly match: Match
  readonly description: Description & { readonly model: string }
  readonly request: CallRequest
  /** The body to send: the caller's own, or one that requests usage. */
  readonly body: string
  /** Whether usage was requested for a caller who did not. */
  readonly hidesUsage: boolean
}

/** A response, as its transport has it. `body` is undefined where there is none. */
export interface Upstream {
  readonly status: number
  readonly header: HeaderReader
  readonly body: Source | undefined
  /** Whether the body is a stream of events. @default by the content type */
  readonly isStream?: boolean | undefined
}

/** Sends a planned request once. It rejects where there is no response; the signal ends the response's body as well. */
export type Send<R extends Upstream> = (signal: AbortSignal) => Promise<R>

/** What a governed call ends with. */
export interface Result<R extends Upstream> {
  readonly response: R
  /** The whole body, or one that is still to be read. */
  readonly body: Uint8Array | Source
  /** Whether the body has other bytes than the provider sent. */
  readonly isChanged: boolean
  /** Whether this is a failure that was retried as often as it may be. */
  readonly isFinal: boolean
}

/** Nothing came for too long. */
export class Stalled extends Error {
  override readonly name = "TimeoutError"
  constructor(silence: string) {
    super(`The answer was silent for ${silence} (for streams see floodgate's option idleTimeout)`)
  }
}

/** A failed attempt, and what the caller gets if it stays so. */
class AttemptFailed<R extends Upstream> extends FailedAttempt {
  /** The provider's own response, or what was thrown. */
  readonly outcome: Effect.Effect<Result<R>, unknown>

  constructor(reason: LlmErrorReason, outcome: Effect.Effect<Result<R>, unknown>) {
    super(new LlmError({ reason }))
    this.outcome = outcome
  }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** The protocols that are known by default. */
const protocols: ReadonlyArray<Protocol> = [anthropic, openaiChat, openaiResponses, gemini]

/** Claude Sonnet 4's on Bedrock; see {@link Accounting.bedrockRuntime}. */
const bedrock = Accounting.bedrockRuntime({ burndown: 5 })

/** How the provider of a route counts. A service that is compatible with one counts as that, until its headers correct it. */
const accountingOf = ({ protocol, route }: Match, url: string): Accounting.Accounting => {
  const { path } = route
  switch (protocol.provider) {
    case "anthropic":
      if (path.includes("/publishers/")) return Accounting.vertex
      return path.startsWith("/model/") ? bedrock : Accounting.anthropic
    case "openai":
      return path.includes("/openai/deployments/") || /\.azure\.com(?=[:/]|$)/.test(url)
        ? Accounting.azure
        : Accounting.openai
    case "gcp.gemini":
      return Accounting.gemini
    default:
      return Accounting.openai
  }
}

const given = <A>(option: A | ((request: CallRequest) => A) | undefined, request: CallRequest): A | undefined =>
  typeof option === "function" ? (option as (request: CallRequest) => A)(request) : option

/** Pings come every few seconds at Anthropic; others send nothing while the model thinks. */
const idleDefault = ({ provider }: Protocol): Duration.Input => (provider === "anthropic" ? "1 minute" : "5 minutes")

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** When it helps to come back, in seconds. */
const seconds = (duration: Duration.Duration | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toSeconds(duration)

const refusalOf = ({ message, reason }: BudgetError): Refusal => {
  switch (reason._tag) {
    case "EstimateTooLarge":
      return { kind: "tooLarge", message }
    case "QuotaExhausted":
    case "Denied":
      return { kind: "spendLimited", message }
    case "StoreUnavailable":
      return { kind: "unavailable", message }
    case "QueueFull":
      return { kind: "rateLimited", message }
    case "WaitTooLong":
      return { kind: "rateLimited", retryAfterSeconds: seconds(reason.wait), message }
  }
}

const withHeader = (response: RefusalResponse, name: string, value: string): RefusalResponse => ({
  ...response,
  headers: { ...response.headers, [name]: value }
})

/**
 * What a client is answered whose call failed with an error of ours, in the shape of its provider; undefined for the errors of
 * others.
 */
export const refuse = ({ match: { protocol } }: Planned, error: unknown): RefusalResponse | undefined => {
  if (error instanceof BudgetError) return protocol.refuse(refusalOf(error))
  if (!isLlmError(error)) return undefined
  const { message, reason } = error
  if (reason._tag === "DeadlineMissed") {
    return protocol.refuse({ kind: "rateLimited", retryAfterSeconds: seconds(reason.wait), message })
  }
  const retryAfterSeconds = seconds(error.retryAfter)
  const response = protocol.refuse({ kind: "unavailable", retryAfterSeconds, message })
  // An open circuit closes; a call that timed out has been retried.
  return reason._tag === "TimedOut" ? withHeader(response, "x-should-retry", "false") : response
}

// -----------------------------------------------------------------------------
// Bodies
// -----------------------------------------------------------------------------

/** Why a body was left before its end. */
class Left {
  readonly why: unknown
  constructor(why: unknown) {
    this.why = why
  }
}
const whyLeft = (value: unknown): unknown => (value instanceof Left ? value.why : undefined)

/**
 * The connection of an attempt: it ends when the attempt's scope closes. Made apart from its call, which would stay in memory as
 * long as a stream.
 */
const connection = Effect.acquireRelease(
  Effect.sync((): Connection => ({ controller: new AbortController(), isOver: false })),
  ({ controller, isOver }, exit) =>
    // An abort has a price even where nothing is left to be ended.
    isOver ? Effect.void : Effect.sync(() => controller.abort(Exit.isSuccess(exit) ? whyLeft(exit.value) : undefined))
)

const empty = new Uint8Array(0)

const join = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (chunks.length === 1) return chunks[0]!
  const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let offset = 0
  for (const chunk of chunks) {
    all.set(chunk, offset)
    offset += chunk.length
  }
  return all
}

const bounded = (source: Source | undefined, opened: Connection, how: Patience) =>
  source === undefined ? Effect.undefined : bound(source, opened, how)

/** A whole body, for which only its silences are too long: one that keeps coming is not cut off. */
const bytesOf = (source: Source | undefined): Effect.Effect<Uint8Array, unknown> => {
  if (source === undefined) return Effect.succeed(empty)
  const read = async (): Promise<Uint8Array> => {
    const chunks: Array<Uint8Array> = []
    for (;;) {
      const chunk = await source.read()
      if (chunk === undefined) return join(chunks)
      chunks.push(chunk)
    }
  }
  return Effect.tryPromise({ try: read, catch: (thrown) => thrown })
}

const decoder = new TextDecoder()
const longestWait = Duration.millis(longestWaitMillis)

const isEventStream = ({ header, isStream }: Upstream): boolean =>
  isStream ?? header("content-type")?.includes("text/event-stream") === true

// -----------------------------------------------------------------------------
// The engine
// -----------------------------------------------------------------------------

/** Governs requests. */
export interface Engine {
  /** The route of a call that a model answers; undefined for every other request, which is to be passed on as it is. */
  readonly route: (method: string, path: string) => Match | undefined
  /** What is to be done with a call; undefined where its body is none of the protocol's, and is to be passed on as it is. */
  readonly plan: (found: Match, request: Incoming) => Planned | undefined
  /**
   * Makes a planned call. It fails with what `send` rejected with, with a `BudgetError` for a call that was refused, or with an
   * `LlmError` of the governor's own: its timeout, or a circuit that is open. A body that is still to be read must be read to its
   * end, or cancelled.
   */
  readonly call: <R extends Upstream>(planned: Planned, send: Send<R>) => Effect.Effect<Result<R>, unknown>
}

/** Makes an engine over the governor of the context. */
export const make = Effect.fnUntraced(function* (
  settings: Settings = {}
): Effect.fn.Return<Engine, never, Governor.Governor> {
  const { idleTimeout, protocols: known = protocols, streamUsage = true } = settings
  const { stalled = (silence: string) => Effect.succeed(new Stalled(silence)) } = settings
  const idle = idleTimeout === undefined ? undefined : durationOf("Floodgate.idleTimeout", idleTimeout)
  const governor = yield* Governor.Governor
  const context = yield* Effect.context<never>()
  const runFork = Effect.runForkWith(context)
  const accounts = makeAccounts()

  const route: Engine["route"] = (method, path) => {
    const found = match(known, method, path)
    const operation = found?.route.operation
    return operation === "generate" || operation === "stream" ? found : undefined
  }

  const plan: Engine["plan"] = (found, { body, header, parsed: given, url }) => {
    const { protocol, route } = found
    const parsed = given ?? parseJson(body)
    const description = protocol.describe(parsed, route, header)
    if (description?.model === undefined) return undefined
    const { model } = description
    const hidesUsage = streamUsage && description.needsUsageRequest && protocol.usageRequest !== undefined
    return {
      match: found,
      description: { ...description, model },
      request: { url, protocol: protocol.name, model, agent: description.agents[0], header, body: parsed },
      body: hidesUsage ? protocol.usageRequest!.inject(body) : body,
      hidesUsage
    }
  }

  /** One attempt, up to the first content of a stream. What it opened lives as long as its scope. */
  const attempt = <R extends Upstream>(planned: Planned, send: Send<R>, ticket: Governor.Ticket) =>
    Effect.gen(function* () {
      const { protocol } = planned.match
      const opened = yield* connection
      const silence = idle ?? durationOf("Floodgate.idleTimeout", idleDefault(protocol))
      const response = yield* Effect.tryPromise({
        try: () => send(opened.controller.signal),
        catch: (thrown) => thrown
      }).pipe(
        Effect.catch((thrown) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) =>
            Effect.fail(new AttemptFailed<R>(SdkErrors.fromThrown(thrown, { now }), Effect.fail(thrown)))
          )
        )
      )
      const { header, status } = response
      accounts.learn(planned.request, header)
      const now = yield* Clock.currentTimeMillis
      const answered = (body: Uint8Array | Source, isFinal: boolean): Result<R> => ({
        response,
        body,
        isChanged: planned.hidesUsage,
        isFinal
      })
      const failed = (reason: LlmErrorReason, body: Uint8Array | Source) =>
        Effect.fail(new AttemptFailed<R>(reason, Effect.succeed(answered(body, true))))
      const failedWith = (body: unknown, bytes: Uint8Array) =>
        failed(SdkErrors.reasonOf(protocol.failure({ status, header, body }, { now })), bytes)

      if (status < 200 || status >= 300) {
        // An error is short: one that drips is not waited for, and is the error without its text.
        const told = Effect.timeoutOption(
          bytesOf(yield* bounded(response.body, opened, { silence, stalled })),
          Duration.times(silence, 4)
        )
        const bytes = yield* Effect.match(told, { onFailure: () => empty, onSuccess: Option.getOrElse(() => empty) })
        return yield* failedWith(decoder.decode(bytes), bytes)
      }

      yield* ticket.observeLimits(protocol.limits({ status, header }, now))
      if (response.body === undefined || !isEventStream(response)) {
        const bytes = yield* Effect.mapError(
          bytesOf(yield* bounded(response.body, opened, { silence: longestWait, stalled })),
          (thrown) => new AttemptFailed<R>(SdkErrors.fromThrown(thrown, { now }), Effect.fail(thrown))
        )
        const parsed = parseJson(decoder.decode(bytes))
        if (parsed === undefined) {
          const requestId = requestIdOf(header)
          return yield* failed(new MalformedResponse({ status, requestId, detail: "no JSON" }), bytes)
        }
        const answer = protocol.answer(parsed)
        if (answer.error !== undefined) return yield* failedWith(answer.error, bytes)
        const actual = usageOf(answer)
        settings.used?.(planned.request)(actual)
        yield* ticket.succeed(actual, infoOf(answer))
        return { result: answered(bytes, false) }
      }

      const source = yield* bound(response.body, opened, { silence, stalled })
      const body = watch({
        protocol,
        header,
        status,
        now,
        source,
        hidesUsage: planned.hidesUsage,
        observed: ticket.recordUsage,
        isStalled: source.isStalled
      })
      const failure = yield* Effect.promise(body.begin)
      if (failure !== undefined) return yield* failed(failure, body.replay())
      return { result: answered(empty, false), stream: { ticket, give: body.give } }
    })

  const governed = <R extends Upstream>(planned: Planned, send: Send<R>, account: string) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const { description, match: found, request } = planned
        const call: Governor.Call = {
          ...description,
          provider: settings.name ?? found.protocol.provider,
          account: account === "" ? undefined : account,
          accounting: given(settings.accounting, request) ?? accountingOf(found, request.url)
        }
        const how = { agent: request.agent, ...given(settings.callOptions, request) }
        const opening = governor.open(call, (ticket) => attempt(planned, send, ticket), how)
        const { opened, scope } = yield* inScope(opening, restore)
        const { result, stream } = opened
        if (stream === undefined) return yield* Effect.as(Scope.close(scope, Exit.void), result)
        const used = settings.used?.(request)
        return { ...result, body: stream.give(concluding(runFork, stream.ticket, scope, used)) }
      })
    )

  const call: Engine["call"] = <R extends Upstream>(planned: Planned, send: Send<R>) => {
    const account = settings.account?.(planned.request) ?? accounts.of(planned.request)
    const made =
      typeof account === "string"
        ? governed(planned, send, account)
        : Effect.flatMap(
            Effect.promise(() => account),
            (account) => governed(planned, send, account)
          )
    return Effect.catch(made, (error): Effect.Effect<Result<R>, unknown> =>
      error instanceof AttemptFailed ? error.outcome : Effect.fail(error)
    )
  }

  return { route, plan, call }
})

/**
 * Ends a stream: settles its ticket, and gives everything back. It, too, is made apart from its call.
 */
const concluding =
  (
    runFork: (effect: Effect.Effect<void>) => unknown,
    ticket: Governor.Ticket,
    scope: Scope.Closeable,
    used: Used | undefined
  ) =>
  (conclusion: Conclusion): void => {
    if (conclusion._tag === "Complete") used?.(conclusion.actual)
    const settled = conclude(ticket, conclusion)
    const exit: Exit.Exit<unknown> =
      conclusion._tag === "Abandoned" ? Exit.succeed(new Left(conclusion.why)) : Exit.void
    runFork(Effect.andThen(settled, Scope.close(scope, exit)))
  }
