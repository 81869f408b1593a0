/**
 * Governed HTTP calls: a request of a known protocol, and a way to send it, become an answer that was admitted, retried,
 * settled and learned from. It knows neither `fetch` nor a server; both are thin over it.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Accounting from "../Accounting.ts"
import { BudgetError } from "../Budget.ts"
import { FailedAttempt } from "../governor/failure.ts"
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
import { type Conclusion, type Source, watch } from "./stream.ts"

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
   * The account whose limits a request counts towards; undefined leaves it to the default. Two accounts never share a pool.
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

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** A request, as its transport has it. */
export interface Incoming {
  readonly method: string
  /** The URL that it is sent to: its path decides the protocol, its host the account. */
  readonly url: string
  readonly header: HeaderReader
  readonly body: string
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
}

/** Sends a planned request once. It rejects where there is no response; the signal ends the response's body as well. */
export type Send<R extends Upstream> = (signal: AbortSignal) => Promise<R>

/** What a governed call ends with. */
export type Result<R extends Upstream> =
  | {
      readonly _tag: "Answered"
      readonly response: R
      /** The whole body, or one that is still to be read. */
      readonly body: Uint8Array | Source
      /** Whether the body has other bytes than the provider sent. */
      readonly isChanged: boolean
      /** Whether this is a failure that was retried as often as it may be. */
      readonly isFinal: boolean
    }
  | {
      readonly _tag: "Refused"
      readonly refusal: RefusalResponse
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

/** What a client is answered whose call the budget refuses. */
const refusalOf = (error: BudgetError): Refusal => {
  const { message, reason } = error
  switch (reason._tag) {
    case "EstimateTooLarge":
      return { kind: "tooLarge", message }
    case "QuotaExhausted":
    case "CapReached":
      return { kind: "spendLimited", message }
    case "StoreUnavailable":
      return { kind: "unavailable", message }
    case "QueueFull":
      return { kind: "rateLimited", message }
    case "WaitTooLong":
    case "DeadlineMissed":
      return { kind: "rateLimited", retryAfterSeconds: seconds(reason.wait), message }
  }
}

// -----------------------------------------------------------------------------
// Bodies
// -----------------------------------------------------------------------------

const tried = <A>(read: () => Promise<A>) => Effect.tryPromise({ try: read, catch: (thrown) => thrown })

/** Reads from a body that may fall silent for ever. What takes too long closes the connection. */
const inTime = <A>(read: () => Promise<A>, most: Duration.Duration, controller: AbortController) =>
  Effect.timeoutOrElse(tried(read), {
    duration: most,
    orElse: () => {
      const stalled = new Stalled(Duration.format(most))
      controller.abort(stalled)
      return Effect.fail(stalled)
    }
  })

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

/** A whole body, for which only its silences are too long: one that keeps coming is not cut off. */
const bytesOf = Effect.fnUntraced(function* (
  source: Source | undefined,
  silence: Duration.Duration,
  controller: AbortController
): Effect.fn.Return<Uint8Array, unknown> {
  if (source === undefined) return empty
  const chunks: Array<Uint8Array> = []
  for (;;) {
    const chunk = yield* inTime(source.read, silence, controller)
    if (chunk === undefined) return join(chunks)
    chunks.push(chunk)
  }
})

const decoder = new TextDecoder()
const longestWait = Duration.millis(longestWaitMillis)
/** An error is short: one that drips is not waited for, and is the error without its text. */
const longestError = Duration.minutes(1)

const isEventStream = ({ header }: Upstream): boolean => header("content-type")?.includes("text/event-stream") === true

// -----------------------------------------------------------------------------
// The engine
// -----------------------------------------------------------------------------

/** Governs requests. */
export interface Engine {
  /** Whether a request is worth reading: its path is one of a known call's. */
  readonly mayGovern: (method: string, url: string) => boolean
  /** What is to be done with a request; undefined where it is none to govern, and is to be passed on as it is. */
  readonly plan: (request: Incoming) => Planned | undefined
  /**
   * Makes a planned call. It fails with what `send` rejected with, or with an error of ours where there is nothing that could
   * be answered; a body that is still to be read must be read to its end, or cancelled.
   */
  readonly call: <R extends Upstream>(planned: Planned, send: Send<R>) => Effect.Effect<Result<R>, unknown>
}

/** Makes an engine over the governor of the context. `used` is told what a call used, once it has succeeded. */
export const make = Effect.fnUntraced(function* (
  options: EngineOptions = {},
  used: (request: CallRequest, actual: Accounting.Actual | undefined) => void = () => {}
): Effect.fn.Return<Engine, never, Governor.Governor> {
  const { idleTimeout, protocols: known = protocols, streamUsage = true } = options
  const idle = idleTimeout === undefined ? undefined : durationOf("Floodgate.idleTimeout", idleTimeout)
  const governor = yield* Governor.Governor
  const context = yield* Effect.context<never>()
  const runFork = Effect.runForkWith(context)
  const runPromise = Effect.runPromiseWith(context)
  const accounts = makeAccounts()

  /** The route of a call that a model answers. */
  const find = (method: string, url: string): Match | undefined => {
    const found = match(known, method, url)
    const operation = found?.route.operation
    return operation === "generate" || operation === "stream" ? found : undefined
  }

  const plan: Engine["plan"] = ({ body, header, method, url }) => {
    const found = find(method, url)
    if (found === undefined) return undefined
    const { protocol, route } = found
    const parsed = parseJson(body)
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

  const call: Engine["call"] = <R extends Upstream>(planned: Planned, send: Send<R>) => {
    const { description, match: found, request } = planned
    const { protocol } = found
    const silence = idle ?? durationOf("Floodgate.idleTimeout", idleDefault(protocol))
    const how = { agent: request.agent, ...given(options.callOptions, request) }

    /** One attempt, up to the first content of a stream. What it opened lives as long as its scope. */
    const attempt = (ticket: Governor.Ticket) =>
      Effect.gen(function* () {
        const controller = yield* Effect.acquireRelease(
          Effect.sync(() => new AbortController()),
          (controller, exit) => Effect.sync(() => controller.abort(Exit.isSuccess(exit) ? left(exit.value) : undefined))
        )
        const response = yield* Effect.tryPromise({
          try: () => send(controller.signal),
          catch: (thrown) => thrown
        }).pipe(
          Effect.catch((thrown) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) =>
              Effect.fail(new AttemptFailed<R>(SdkErrors.fromThrown(thrown, { now }), Effect.fail(thrown)))
            )
          )
        )
        accounts.learn(request, response.header)
        const { header, status } = response
        const now = yield* Clock.currentTimeMillis
        const answered = (body: Uint8Array | Source, isFinal: boolean): Result<R> => ({
          _tag: "Answered",
          response,
          body,
          isChanged: planned.hidesUsage,
          isFinal
        })
        const failed = (reason: LlmErrorReason, body: Uint8Array | Source) =>
          Effect.fail(new AttemptFailed<R>(reason, Effect.succeed(answered(body, true))))

        if (status < 200 || status >= 300) {
          const told = Effect.timeoutOption(bytesOf(response.body, silence, controller), longestError)
          const bytes = yield* Effect.match(told, {
            onFailure: () => empty,
            onSuccess: (bytes) => (bytes._tag === "Some" ? bytes.value : empty)
          })
          const body = decoder.decode(bytes)
          return yield* failed(SdkErrors.reasonOf(protocol.failure({ status, header, body }, { now })), bytes)
        }

        yield* ticket.observeLimits(protocol.limits({ status, header }, now))
        if (response.body === undefined || !isEventStream(response)) {
          const bytes = yield* Effect.mapError(
            bytesOf(response.body, longestWait, controller),
            (thrown) => new AttemptFailed<R>(SdkErrors.fromThrown(thrown, { now }), Effect.fail(thrown))
          )
          const parsed = parseJson(decoder.decode(bytes))
          const requestId = requestIdOf(header)
          if (parsed === undefined) {
            return yield* failed(new MalformedResponse({ status, requestId, detail: "no JSON" }), bytes)
          }
          const answer = protocol.answer(parsed)
          if (answer.error !== undefined) {
            return yield* failed(
              SdkErrors.reasonOf(protocol.failure({ status, header, body: answer.error }, { now })),
              bytes
            )
          }
          const actual = usageOf(answer)
          used(request, actual)
          yield* ticket.succeed(actual, infoOf(answer))
          return { _tag: "Whole" as const, result: answered(bytes, false) }
        }

        const source = response.body
        const body = watch({
          protocol,
          header,
          status,
          now,
          source: { ...source, read: () => runPromise(inTime(source.read, silence, controller)) },
          hidesUsage: planned.hidesUsage,
          observed: ticket.recordUsage,
          isStalled: (thrown) => thrown instanceof Stalled
        })
        const failure = yield* Effect.promise(body.begin)
        if (failure !== undefined) return yield* failed(failure, body.replay())
        return { _tag: "Stream" as const, ticket, give: body.give, answered }
      })

    const governed = (account: string) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const described: Governor.Call = {
            ...description,
            provider: protocol.provider,
            account,
            accounting: given(options.accounting, request) ?? accountingOf(found, request.url)
          }
          const opened = yield* Effect.onExit(
            restore(Scope.provide(governor.open(described, attempt, how), scope)),
            (exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit))
          )
          if (opened._tag === "Whole") return yield* Effect.as(Scope.close(scope, Exit.void), opened.result)
          const { answered, give, ticket } = opened
          return answered(
            give((conclusion) => {
              if (conclusion._tag === "Complete") used(request, conclusion.actual)
              runFork(concluded(ticket, scope, conclusion))
            }),
            false
          )
        })
      )

    const account = options.account?.(request) ?? accounts.of(request)
    const made =
      typeof account === "string"
        ? governed(account)
        : Effect.flatMap(
            Effect.promise(() => account),
            governed
          )
    return Effect.catch(made, (error): Effect.Effect<Result<R>, unknown> => {
      if (error instanceof AttemptFailed) return error.outcome
      const refused = (refusal: Refusal, isFinal: boolean) =>
        Effect.succeed({ _tag: "Refused" as const, refusal: protocol.refuse(refusal), isFinal })
      if (error instanceof BudgetError) return refused(refusalOf(error), false)
      if (!isLlmError(error)) return Effect.fail(error)
      // The governor's own: its timeout, or a circuit that is open.
      const retryAfterSeconds = seconds(error.retryAfter)
      return refused(
        { kind: "unavailable", retryAfterSeconds, message: error.message },
        error.reason._tag === "TimedOut"
      )
    })
  }

  return { mayGovern: (method, url) => find(method, url) !== undefined, plan, call }
})

/** What a body's connection is aborted with. */
const left = (value: unknown): unknown => (value instanceof Left ? value.why : undefined)
class Left {
  readonly why: unknown
  constructor(why: unknown) {
    this.why = why
  }
}

/** Ends a stream: settles its ticket, and gives everything back. */
const concluded = (ticket: Governor.Ticket, scope: Scope.Closeable, conclusion: Conclusion): Effect.Effect<void> => {
  switch (conclusion._tag) {
    case "Complete":
      return Effect.andThen(ticket.succeed(conclusion.actual, conclusion.info), Scope.close(scope, Exit.void))
    case "Failed":
      return Effect.andThen(ticket.fail(new LlmError({ reason: conclusion.reason })), Scope.close(scope, Exit.void))
    case "Abandoned":
      return Scope.close(scope, Exit.succeed(new Left(conclusion.why)))
  }
}
