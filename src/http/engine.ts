/**
 * Governed HTTP calls: given a request of a known protocol and a function that sends it, the engine admits the call, retries
 * it, settles it and learns from its answer. `fetch` and the gateway are thin adapters over it.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import * as Random from "effect/Random"
import * as EffectResult from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import * as Lru from "../domain/input/lru.ts"
import { forCaller } from "../call/failure.ts"
import { conclude, type Conclusion, inScope } from "../call/stream.ts"
import * as Direct from "../call/direct.ts"
import type * as Called from "../call/models.ts"
import * as AtOnce from "../domain/atOnce.ts"
import * as Governor from "../Governor.ts"
import { type Patience, type SilenceTimer, timerOf } from "../domain/input/silence.ts"
import type { Match, Protocol } from "../protocol/protocol.ts"
import { type Accounts, type Identity, identityOf, makeAccounts } from "./account.ts"
import { hostOf } from "./credentials.ts"
import {
  connection,
  errorOf,
  type AttemptFailure,
  failedWith,
  Abandoned,
  parserOf,
  type Attempted,
  readStream,
  readWhole,
  thrownAt
} from "./attempt.ts"
import type { AttemptAnswer, AttemptResponse } from "./attempt.ts"
import { DrivenExchange } from "./direct.ts"
import { callPlacesOf, changeAt, parseHttpPlaces, targetsOf } from "./places.ts"
import { accountingOf, planOf, protocols, routes } from "./plan.ts"
import {
  type BodyChange,
  type Dispatch,
  type DrivenCall,
  type Outlet,
  type IncomingRequest,
  type HttpCall,
  type CallResult,
  type SendAttempt,
  type EngineSettings,
  Stalled,
  type CallTerms,
  type ProviderResponse,
  type OnUsage,
  type Target
} from "./models.ts"

export * from "./models.ts"
export { type Accounts, makeAccounts } from "./account.ts"
export { protocols } from "./plan.ts"
export { refuse } from "./refuse.ts"
export type { BodyFlow, ByteSource, ChunkFlow } from "./stream.ts"

// -----------------------------------------------------------------------------
// Requests for usage
// -----------------------------------------------------------------------------

/** More services than a program calls. One that is evicted is asked again. */
const maxRefusing = 1_000

/** Remembers which services reject requests for the usage of a stream. It is mutable and belongs to one engine. */
const makeUsageRequests = () => {
  const refusing = new Map<string, true>()
  return {
    /** The change that requests usage; undefined if the caller's own body is sent. */
    changeOf: ({
      match,
      needsUsageRequest,
      request,
      text,
      usageInsertion: insert
    }: HttpCall): BodyChange | undefined => {
      const { usageRequest } = match.protocol
      if (!needsUsageRequest || usageRequest === undefined || refusing.has(hostOf(request))) return undefined
      if (insert !== undefined) return { insert }
      return text && { text: usageRequest.inject(text()) }
    },
    /** Whether the service rejected the request for usage. If so, it is not asked again. */
    isRefused: ({ request }: HttpCall, status: number, error: string): boolean => {
      const isRefused = (status === 400 || status === 422) && error.includes("stream_options")
      if (isRefused) Lru.put(refusing, hostOf(request), true, maxRefusing)
      return isRefused
    }
  }
}

// -----------------------------------------------------------------------------
// The engine
// -----------------------------------------------------------------------------

/** Governs requests. */
export interface Engine {
  /** The route of a call that a model answers; undefined for every other request, which is passed on unchanged. */
  readonly route: (method: string, path: string) => Match | undefined
  /** Plans a call; undefined if its body does not fit the protocol, so that it is passed on unchanged. */
  readonly plan: (found: Match, request: IncomingRequest) => HttpCall | undefined
  /**
   * Makes a planned call. It fails with the error of `send`, with a `BudgetError` if the call was refused, or with an `LlmError`
   * of the governor (its timeout, or an open circuit). A body that is a source must be read to its end, or cancelled.
   */
  readonly call: <R extends ProviderResponse>(
    planned: HttpCall,
    send: SendAttempt<R>
  ) => Effect.Effect<CallResult<R>, unknown>
  /**
   * Makes a planned call as `call` does, but driven by its transport. If the call has to wait or fails, the outlet gets the rest
   * of it as an effect. Returns undefined, before anything has happened, if all of the call needs Effect.
   */
  readonly start: <R extends ProviderResponse>(planned: HttpCall, how: StartOptions<R>) => DrivenCall | undefined
}

/** How a call is made that its transport drives. */
export interface StartOptions<R extends ProviderResponse> {
  /** Changes the context of the engine for this call. */
  readonly around: (context: Context.Context<never>) => Context.Context<never>
  readonly dispatch: Dispatch<R>
  /** Sends further attempts. */
  readonly send: SendAttempt<R>
  readonly outlet: Outlet<R>
}

/** Anthropic sends pings every few seconds; others send nothing while the model thinks. */
const idleWithPings = Duration.minutes(1)
const idleWithout = Duration.minutes(5)
const idleOf = ({ provider }: Protocol): Duration.Duration => (provider === "anthropic" ? idleWithPings : idleWithout)

/** The parts of an engine. */
interface EngineParts {
  readonly settings: EngineSettings
  readonly governor: Governor.Governor["Service"]
  readonly accounts: Accounts
  readonly usageRequests: ReturnType<typeof makeUsageRequests>
  readonly patienceOf: (planned: HttpCall) => Patience
  readonly runFork: (effect: Effect.Effect<void>) => unknown
  readonly context: Context.Context<never>
  readonly timer: SilenceTimer
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly seed: () => number
}

/** Makes an engine that uses the governor of the context. */
export const make = Effect.fnUntraced(function* (
  settings: EngineSettings
): Effect.fn.Return<Engine, never, Governor.Governor> {
  const { idleTimeout, protocols: known = protocols } = settings
  const { stalled = (silence: string) => Effect.succeed(new Stalled(silence)) } = settings
  const idle = idleTimeout === undefined ? undefined : Duration.fromInputUnsafe(idleTimeout)
  const places = parseHttpPlaces(settings.places)
  const context = yield* Effect.context<never>()
  const clock = Context.get(context, Clock.Clock)
  const random = Context.get(context, Random.Random)
  const parts: EngineParts = {
    context,
    timer: timerOf(context),
    now: () => clock.currentTimeMillisUnsafe(),
    seed: () => random.nextIntUnsafe(),
    settings,
    governor: yield* Governor.Governor,
    accounts: settings.accounts ?? makeAccounts(),
    usageRequests: makeUsageRequests(),
    patienceOf: ({ match: { protocol } }) => ({ silence: idle ?? idleOf(protocol), stalled }),
    runFork: Effect.runForkWith(context)
  }
  return {
    route: routes(known),
    plan: (found, request) => planOf(found, request, settings, places),
    call: (planned, send) => called(parts, planned, send),
    start: (planned, how) => started(parts, planned, how)
  }
})

/** The account of a call. */
interface CallAccount {
  readonly account: string
  /** The identity of its request; undefined if the options set the account. */
  readonly identity: Identity | undefined
  /** Where the call may go; none if its model has no places. */
  readonly targets: ReadonlyArray<Target>
}

const none: ReadonlyArray<Target> = []

/** Finds the account of a call. It is a promise if a credential must be hashed first. */
const accountOf = (
  { accounts, settings: { credentialName } }: EngineParts,
  planned: HttpCall,
  { account: given }: CallTerms
): CallAccount | Promise<CallAccount> => {
  if (planned.places !== undefined) {
    const found = targetsOf(planned, planned.places, accounts, credentialName)
    return found.then((targets) => ({ account: "", identity: undefined, targets }))
  }
  if (given !== undefined) return { account: given, identity: undefined, targets: none }
  const identity = identityOf(planned.request)
  const own = accounts.of(identity, credentialName)
  if (typeof own === "string") return { account: own, identity, targets: none }
  return own.then((account) => ({ account, identity, targets: none }))
}

/** Finds the account of a call, and makes the call. */
const called = <R extends ProviderResponse>(
  parts: EngineParts,
  planned: HttpCall,
  send: SendAttempt<R>
): Effect.Effect<CallResult<R>, unknown> => {
  const { terms } = planned
  if (EffectResult.isFailure(terms)) return Effect.die(terms.failure)
  const found = Effect.suspend(() => {
    const whose = accountOf(parts, planned, terms.success)
    return whose instanceof Promise ? Effect.promise(() => whose) : Effect.succeed(whose)
  })
  const made = Effect.flatMap(found, (whose) =>
    Effect.uninterruptibleMask((restore) => governed(parts, planned, send, { ...terms.success, ...whose }, restore))
  )
  return forCaller(made)
}

const governed = <R extends ProviderResponse>(
  parts: EngineParts,
  planned: HttpCall,
  send: SendAttempt<R>,
  { accounting, callOptions, ...whose }: Omit<CallTerms, "account"> & CallAccount,
  restore: Called.Restore
) => {
  const call = callOf(parts, planned, whose, accounting)
  const opening = parts.governor.open(call, (ticket) => attempt(parts, planned, send, ticket, whose), callOptions)
  return opened(parts, planned, opening, restore)
}

/** The fields of a description that a call does not have. Overriding them is faster than leaving them out. */
const ofRequests = { binary: undefined, needsUsageRequest: undefined, requests: undefined }

const callOf = (
  { settings }: EngineParts,
  planned: HttpCall,
  { account, targets }: CallAccount,
  accounting: Accounting.Accounting
): Governor.Call => {
  const { description, match: found, places } = planned
  return {
    ...description,
    ...ofRequests,
    operation: found.route.operation === "embed" ? "embeddings" : description.operation,
    provider: settings.name ?? found.protocol.provider,
    account: account === "" ? undefined : account,
    accounting,
    countTokens: planned.countTokens,
    places: places && callPlacesOf(planned, places, targets, (url) => accountingOf(found, url))
  }
}

/** Gives the answer of a call that is being opened. The call ends with it, or with the stream of it. */
const opened = Effect.fnUntraced(function* <R extends ProviderResponse, E>(
  { runFork, settings }: EngineParts,
  planned: HttpCall,
  opening: Effect.Effect<AttemptAnswer<R>, E, Scope.Scope>,
  restore: Called.Restore
) {
  const { opened, scope } = yield* inScope(opening, restore)
  const { result, stream } = opened
  if (stream === undefined) return yield* Effect.as(Scope.close(scope, Exit.void), result)
  const used = settings.used?.(planned)
  return { ...result, body: stream.give(concluding(runFork, stream.ticket, scope, used)) }
})

/** One attempt, up to the first content of a stream. Its connection stays open as long as its scope. */
const attempt = <R extends ProviderResponse>(
  parts: EngineParts,
  planned: HttpCall,
  send: SendAttempt<R>,
  ticket: Governor.Ticket,
  whose: CallAccount
): Attempted<R> =>
  Effect.flatMap(sent(parts, planned, send, ticket, whose), (reply) => received(parts, send, whose, reply))

/** Reads the response to an attempt. */
const received = Effect.fnUntraced(function* <R extends ProviderResponse>(
  parts: EngineParts,
  send: SendAttempt<R>,
  whose: CallAccount,
  reply: AttemptResponse<R>
): Effect.fn.Return<AttemptAnswer<R>, AttemptFailure<R>, Scope.Scope> {
  const { settings, usageRequests } = parts
  const { hidesUsage, planned, response, ticket } = reply
  const { body, header, status } = response
  if (status < 200 || status >= 300) {
    const bytes = yield* errorOf(reply)
    const error = new TextDecoder().decode(bytes)
    // The caller did not request the usage, so it must not see the error.
    if (hidesUsage && usageRequests.isRefused(planned, status, error)) {
      return yield* attempt(parts, planned, send, ticket, whose)
    }
    return yield* failedWith(reply, error, bytes)
  }
  yield* ticket.observeLimits(planned.match.protocol.limits({ status, header }))
  const parser = parserOf(reply)
  return body === undefined || parser === undefined
    ? yield* readWhole(reply, (actual) => settings.used?.(planned)(actual))
    : yield* readStream(reply, body, parser)
})

// -----------------------------------------------------------------------------
// Calls that their transport drives
// -----------------------------------------------------------------------------

/** Starts a call without Effect; undefined if it needs Effect. */
const started = <R extends ProviderResponse>(
  parts: EngineParts,
  planned: HttpCall,
  how: StartOptions<R>
): DrivenCall | undefined => {
  const { accounts, governor, settings } = parts
  const begin = AtOnce.of<Direct.Begin>(governor.open)
  const { places, terms } = planned
  if (begin === undefined || places !== undefined || EffectResult.isFailure(terms)) return undefined
  const whose = accountOf(parts, planned, terms.success)
  if (whose instanceof Promise) return undefined
  const { account, identity } = whose
  const { accounting, callOptions } = terms.success
  const context = how.around(parts.context)
  const call = begin(context, callOf(parts, planned, whose, accounting), callOptions)
  if (call === undefined) return undefined
  const tried = (ticket: Governor.Ticket) => attempt(parts, planned, how.send, ticket, whose)
  const goOn = (rest?: Attempted<R>): void => {
    const going = Effect.uninterruptibleMask((restore) =>
      opened(parts, planned, Direct.resume(call, tried, rest), restore)
    )
    how.outlet.goOn(Effect.provideContext(forCaller(going), context))
  }
  if (!call.isSent) {
    goOn()
    return nothingToDrive
  }
  const change = parts.usageRequests.changeOf(planned)
  const exchange = new DrivenExchange<R>({
    planned,
    call,
    hidesUsage: change !== undefined,
    patience: parts.patienceOf(planned),
    timer: parts.timer,
    outlet: how.outlet,
    now: parts.now,
    seed: parts.seed,
    fork: parts.runFork,
    used: () => settings.used?.(planned),
    learn: (response) => {
      const joined = identity && accounts.learn(identity, account, response)
      if (joined !== undefined) parts.runFork(oneOrganisation(account, joined))
    },
    read: (reply) => received(parts, how.send, whose, reply),
    goOn
  })
  exchange.send((intake) => how.dispatch(change, intake))
  return exchange
}

/** A call that went on in Effect at once. */
const nothingToDrive: DrivenCall = { leave: constVoid, resume: constVoid }

/** Says once that two credentials share their limits, because whoever made two keys probably expected twice the limit. */
const oneOrganisation = (account: string, joined: string): Effect.Effect<void> =>
  Effect.logWarning(
    `The credentials of ${account} and of ${joined} belong to one organisation at the provider, so they share its limits: from now on, both use the pools of ${joined}`
  )

/** Sends a request, asking for the usage if the caller did not and the service accepts that. */
const sent = Effect.fnUntraced(function* <R extends ProviderResponse>(
  { accounts, patienceOf, usageRequests }: EngineParts,
  planned: HttpCall,
  send: SendAttempt<R>,
  ticket: Governor.Ticket,
  whose: CallAccount
): Effect.fn.Return<AttemptResponse<R>, AttemptFailure<R>, Scope.Scope> {
  const requested = usageRequests.changeOf(planned)
  const target = whose.targets.find(({ place }) => place.name === ticket.place)
  const change = target === undefined ? requested : changeAt(planned, target, requested)
  const opened = yield* connection
  const sending = Effect.tryPromise({
    try: () => send(opened.controller.signal, change, target),
    catch: (thrown) => thrown
  })
  const response = yield* Effect.catch(sending, (thrown) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(thrownAt<R>(thrown, now)))
  )
  const { account, identity } = target ?? whose
  const joined = identity && accounts.learn(identity, account, response)
  if (joined !== undefined) yield* oneOrganisation(account, joined)
  const now = yield* Clock.currentTimeMillis
  return { planned, ticket, response, opened, patience: patienceOf(planned), now, hidesUsage: requested !== undefined }
})

/**
 * Ends a stream: settles its ticket and closes its scope. It is a function of its own because a closure within the call would keep
 * the call in memory as long as the stream.
 */
const concluding =
  (
    runFork: (effect: Effect.Effect<void>) => unknown,
    ticket: Governor.Ticket,
    scope: Scope.Closeable,
    used: OnUsage | undefined
  ) =>
  (conclusion: Conclusion): void => {
    if (conclusion._tag === "Complete") used?.(conclusion.actual)
    const settled = conclude(ticket, conclusion)
    const exit: Exit.Exit<unknown> =
      conclusion._tag === "Abandoned" ? Exit.succeed(new Abandoned(conclusion.why)) : Exit.void
    runFork(Effect.ensuring(settled, Scope.close(scope, exit)))
  }
