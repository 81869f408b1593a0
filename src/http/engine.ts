/**
 * Governed HTTP calls: given a request of a known protocol and a function that sends it, the engine admits the call, retries
 * it, settles it and learns from its answer. `fetch` and the gateway are thin adapters over it.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { constVoid } from "effect/Function"
import * as Random from "effect/Random"
import * as EffectResult from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import type { CallError } from "../call/admission.ts"
import { forCaller } from "../call/failure.ts"
import { inScope } from "../call/stream.ts"
import * as Direct from "../call/direct.ts"
import { callCheck } from "../call/models.ts"
import * as Trace from "../call/trace.ts"
import * as SyncForm from "../domain/syncForm.ts"
import * as Reported from "../call/reported.ts"
import * as Governor from "../Governor.ts"
import { check } from "../domain/input/checks.ts"
import { timerOf } from "../call/silence.ts"
import type { Match, Protocol } from "../protocol/protocol.ts"
import { protocols } from "../protocol/protocols.ts"
import { type Accounts, type Identity, identityOf, makeAccounts } from "./account.ts"
import { type AttemptEnds, type ExchangeTools, HttpExchange, ofTicket } from "./exchange.ts"
import type { PassedStream, SettledCall } from "./passing.ts"
import { callPlacesOf, changeAt, parseHttpPlaces, targetsOf } from "./places.ts"
import { accountingOf, planOf, routes } from "./plan.ts"
import type { AttemptFailure, EndedAnswer } from "./reply.ts"
import {
  type CallTerms,
  type Dispatch,
  type DrivenCall,
  type EngineSettings,
  type HttpCall,
  type IncomingRequest,
  type Outlet,
  type ProviderResponse,
  Stalled,
  type Target
} from "./models.ts"
import { makeJudge, type OtherRequest, type Judgement } from "./uncounted.ts"
import { makeUsageRequests } from "./usageRequests.ts"

export * from "./models.ts"
export { type Accounts, makeAccounts } from "./account.ts"
export { overrideIn } from "../protocol/uncounted.ts"
export { refuse, type RefusedCall } from "./refuse.ts"
export { anyModel, type OtherRequest, type Judgement, unreadCall } from "./uncounted.ts"
export { type BodyFlow, type ChunkFlow, ReadFlow } from "./stream.ts"

// -----------------------------------------------------------------------------
// The engine
// -----------------------------------------------------------------------------

/** Governs requests. */
export interface Engine {
  /** The route of a call that a model answers; undefined for every other request, which is passed on unchanged. */
  readonly route: (method: string, path: string) => Match | undefined
  /** Plans a call; undefined if its body does not fit the protocol, so that it is passed on unchanged. */
  readonly plan: (found: Match, request: IncomingRequest) => HttpCall | undefined
  /** Judges a request that is no call. */
  readonly judge: (request: OtherRequest) => Judgement
  /** Makes a planned call, whose answer goes to the outlet. Nothing is thrown: whatever fails is given to the outlet. */
  readonly start: <R extends ProviderResponse>(planned: HttpCall, options: StartOptions<R>) => DrivenCall
}

/** The options of a call. */
export interface StartOptions<R extends ProviderResponse> {
  /** Changes the context of the engine for this call. @default unchanged */
  readonly around?: ((context: Context.Context<never>) => Context.Context<never>) | undefined
  readonly dispatch: Dispatch<R>
  readonly outlet: Outlet<R>
}

/** Anthropic sends pings every few seconds; others send nothing while the model thinks. */
const idleWithPings = Duration.minutes(1)
const idleWithout = Duration.minutes(5)
const idleOf = ({ provider }: Protocol): Duration.Duration => (provider === "anthropic" ? idleWithPings : idleWithout)

/** The parts of an engine. */
interface EngineParts extends ExchangeTools {
  readonly settings: EngineSettings
  readonly governor: Governor.Governor["Service"]
  readonly accounts: Accounts
  readonly fork: <A>(effect: Effect.Effect<A, unknown>) => Fiber.Fiber<A, unknown>
  readonly context: Context.Context<never>
}

/** Makes an engine that uses the governor of the context. */
export const make = Effect.fnUntraced(function* (
  settings: EngineSettings
): Effect.fn.Return<Engine, never, Governor.Governor> {
  const { idleTimeout, protocols: known = Object.values(protocols) } = settings
  const { stalled = (silence: string) => Effect.succeed(new Stalled(silence)) } = settings
  const idle = idleTimeout === undefined ? undefined : Duration.fromInputUnsafe(idleTimeout)
  const places = parseHttpPlaces(settings.places)
  const context = yield* Effect.context<never>()
  const clock = Context.get(context, Clock.Clock)
  const random = Context.get(context, Random.Random)
  const fork = Effect.runForkWith(context)
  const parts: EngineParts = {
    context,
    timer: timerOf(context),
    now: () => clock.currentTimeMillisUnsafe(),
    seed: () => random.nextIntUnsafe(),
    settings,
    governor: yield* Governor.Governor,
    accounts: settings.accounts ?? makeAccounts(),
    usageRequests: makeUsageRequests(),
    used: (planned) => {
      const use = settings.used?.(planned)
      if (use === undefined) return undefined
      const ceiling = Reported.ceilingOf(undefined, planned.description)
      return (actual) => use(actual && Reported.below(ceiling, Reported.read(actual)).actual)
    },
    patienceOf: ({ match: { protocol } }) => ({ silence: idle ?? idleOf(protocol), stalled }),
    fork,
    run: (rest) => {
      if (rest !== undefined) fork(rest)
    }
  }
  const route = routes(known)
  return {
    route,
    judge: makeJudge(settings, known, context, route, parts.run),
    plan: (found, request) => planOf(found, request, settings, places),
    start: (planned, options) => new EngineCall(parts, planned, options).start()
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

/** The fields of a description that a call does not have. Overriding them is faster than leaving them out. */
const ofRequests = { background: undefined, binary: undefined, needsUsageRequest: undefined, requests: undefined }

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

/** Says once that two credentials share their limits, because whoever made two keys probably expected twice the limit. */
const oneOrganisation = (account: string, joined: string): Effect.Effect<void> =>
  Effect.logWarning(
    `The credentials of ${account} and of ${joined} belong to one organisation at the provider, so they share its limits: from now on, both use the pools of ${joined}`
  )

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** A successful attempt: a whole answer, or the exchange of a stream that continues. */
type AttemptAnswer<R extends ProviderResponse> = EndedAnswer<R> | HttpExchange<R>
type Attempted<R extends ProviderResponse> = Effect.Effect<AttemptAnswer<R>, AttemptFailure<R>, Scope.Scope>

/** A call as its outlet has it. While a stream is passed on, it does not refer to the request. It is mutable. */
class Driven<R extends ProviderResponse> implements DrivenCall {
  isLeft = false
  private stream: PassedStream<R> | undefined = undefined
  private end: (() => void) | undefined = undefined

  /** Says how the call ends if it is left before a stream is passed on, or if it was left on the way. */
  endsBy(end: () => void): void {
    if (this.isLeft) end()
    else if (this.stream === undefined) this.end = end
  }

  readonly passes = (stream: PassedStream<R>): void => {
    this.stream = stream
    this.end = undefined
  }

  readonly resume = (): void => this.stream?.resume()

  readonly leave = (why: unknown): void => {
    this.isLeft = true
    if (this.stream === undefined) this.end?.()
    else this.stream.leave(why)
  }
}

// These are functions of their own because closures within the call would keep the request in memory as long as the stream.
const endOf = (ticket: Direct.DirectTicket) => () => ticket.end(Exit.void)
const closeOf = (scope: Scope.Closeable) => () => Scope.close(scope, Exit.void)
const leaving = <R extends ProviderResponse>(exchange: HttpExchange<R>) =>
  Effect.suspend(() => exchange.leave() ?? Effect.void)

/**
 * One call. Its attempts are exchanges, which need no Effect. The call enters Effect only if it has to wait, fails, or is governed by
 * a layer that needs it.
 */
class EngineCall<R extends ProviderResponse> {
  readonly driven = new Driven<R>()
  private readonly parts: EngineParts
  private readonly planned: HttpCall
  private readonly options: StartOptions<R>
  private readonly context: Context.Context<never>

  constructor(parts: EngineParts, planned: HttpCall, options: StartOptions<R>) {
    this.parts = parts
    this.planned = planned
    this.options = options
    this.context = options.around?.(parts.context) ?? parts.context
  }

  start(): DrivenCall {
    const { driven, options, parts, planned } = this
    const { terms } = planned
    try {
      if (EffectResult.isFailure(terms)) throw terms.failure
      const whose = accountOf(parts, planned, terms.success)
      if (!(whose instanceof Promise)) this.begin(terms.success, whose)
      else
        this.goOn(
          Effect.flatMap(
            Effect.promise(() => whose),
            (whose) => this.open(terms.success, whose)
          )
        )
    } catch (thrown) {
      options.outlet.failed(Cause.die(thrown))
    }
    return driven
  }

  private begin(terms: CallTerms, whose: CallAccount): void {
    const { context, driven, options, parts, planned } = this
    const { governor, run } = parts
    const request = callOf(parts, planned, whose, terms.accounting)
    const opening = SyncForm.of<Direct.OpenForms>(governor.open)
    // The options were checked with the request, but a protocol or an accounting of the caller's may have described the call.
    if (opening !== undefined) check("Governor.open", callCheck, request)
    const call = opening && Direct.begin(opening.parts, context, request, terms.callOptions)
    if (call === undefined) return this.goOn(this.open(terms, whose))
    const attempt = (ticket: Governor.Ticket) => this.attempt(ticket, whose)
    if (!call.isSent) return this.goOn(call.resume(attempt))
    const exchange: HttpExchange<R> = this.exchangeOf(call, whose, {
      answered: (answer, rest) => {
        run(rest)
        run(call.end(Exit.void))
        give(options.outlet, answer)
      },
      failed: (failure) => this.goOn(call.resume<AttemptAnswer<R>, AttemptFailure<R>, Scope.Scope>(attempt, failure)),
      streams: () => exchange.passOn(endOf(call), driven.passes)
    })
    driven.endsBy(() => {
      const rest = exchange.leave()
      if (rest === undefined) return
      run(rest)
      run(call.end(Exit.interrupt()))
    })
    exchange.send()
  }

  private open({ accounting, callOptions }: CallTerms, whose: CallAccount) {
    const { parts, planned } = this
    const call = callOf(parts, planned, whose, accounting)
    return parts.governor.open(call, (ticket) => this.attempt(ticket, whose), callOptions)
  }

  /** Makes the call, or the rest of it, in Effect. It ends with its answer, or with the stream of it. */
  private goOn(opening: Effect.Effect<AttemptAnswer<R>, AttemptFailure<R> | CallError, Scope.Scope>): void {
    const { context, driven, options, parts } = this
    const made = Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(inScope(opening, restore), ({ opened, scope }) => {
        const close = closeOf(scope)
        if (!(opened instanceof HttpExchange)) return Effect.as(close(), opened)
        // The scope also ends the exchange.
        if (driven.isLeft) return Effect.as(close(), undefined)
        opened.passOn(close, driven.passes)
        return Effect.undefined
      })
    )
    const fiber = parts.fork(Effect.provideContext(forCaller(made), context))
    driven.endsBy(() => fiber.interruptUnsafe())
    fiber.addObserver((exit) => {
      if (driven.isLeft) return
      if (Exit.isFailure(exit)) options.outlet.failed(exit.cause)
      else if (exit.value !== undefined) give(options.outlet, exit.value)
    })
  }

  /** One attempt in Effect, up to the first content of a stream. The end of its scope ends the exchange. */
  private attempt(ticket: Governor.Ticket, whose: CallAccount): Attempted<R> {
    return Effect.withFiber(({ context }) => {
      let resume: (attempted: Effect.Effect<AttemptAnswer<R>, AttemptFailure<R>>) => void = constVoid
      const ends: AttemptEnds<R> = {
        answered: (answer, rest) => resume(rest === undefined ? Effect.succeed(answer) : Effect.as(rest, answer)),
        failed: (failure) => resume(failure),
        streams: () => resume(Effect.succeed(exchange))
      }
      const exchange: HttpExchange<R> = this.exchangeOf(ofTicket(ticket), whose, ends, Trace.headerOf(context))
      const ended = Scope.addFinalizer(Context.getUnsafe(context, Scope.Scope), leaving(exchange))
      const sent = Effect.callback<AttemptAnswer<R>, AttemptFailure<R>>((done) => {
        resume = done
        exchange.send()
        // Before the call is settled as interrupted.
        return leaving(exchange)
      })
      return Effect.andThen(ended, sent)
    })
  }

  private exchangeOf(
    call: SettledCall,
    whose: CallAccount,
    ends: AttemptEnds<R>,
    traceparent?: string
  ): HttpExchange<R> {
    const { options, parts, planned } = this
    const target = whose.targets.find(({ place }) => place.name === call.place)
    const { account, identity } = target ?? whose
    return new HttpExchange<R>({
      ends,
      tools: parts,
      planned,
      call,
      outlet: options.outlet,
      learn: (response) => {
        const joined = identity && parts.accounts.learn(identity, account, response)
        if (joined !== undefined) parts.fork(oneOrganisation(account, joined))
      },
      dispatch: (change, intake) =>
        options.dispatch(target === undefined ? change : changeAt(planned, target, change), target, intake, traceparent)
    })
  }
}

/** Gives an answer that has ended to an outlet. */
const give = <R extends ProviderResponse>(outlet: Outlet<R>, { body, result }: EndedAnswer<R>): void => {
  if (body instanceof Uint8Array) return outlet.whole(result, body)
  outlet.begin(result)
  for (const piece of body.pieces) outlet.write(piece)
  if (body.broken === undefined) outlet.end()
  else outlet.cut(body.broken.thrown)
}
