/** One governed call: what was asked, and what spans its attempts. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Budget from "../Budget.ts"
import { millisOf } from "../domain/input/checks.ts"
import { type Purse, Purses } from "../domain/spending/models.ts"
import { reservesMost } from "../money/ledger.ts"
import { ReadPrefixes } from "../protocol/prefixes.ts"
import type { ParkingPlace } from "../money/parking.ts"
import type * as Limits from "../Limits.ts"
import type { Placement } from "../places/placement.ts"
import type { Call, CallOptions } from "./models.ts"
import type { GovernorParts } from "./parts.ts"
import { RetryBudget, type RetryTokens, tokensOf } from "./retryBudget.ts"
import { Deadline } from "./retryPolicy.ts"

/** Whether calls in a context have spans. */
export const isTraced = (context: Context.Context<never>): boolean =>
  (Context.getOrUndefined(context, Tracer.ParentSpan) ?? Context.getOrUndefined(context, Tracer.Tracer)) !== undefined

/** A call. A stream keeps it in memory, so it does not refer to what is sent. */
export class GovernedCall {
  readonly parts: GovernorParts
  /** The call as it was described. */
  request: Call
  readonly options: CallOptions
  readonly clock: Clock.Clock
  /** The places where it can be made; undefined if there is only one. */
  readonly placement: Placement | undefined
  /** The fairness key in the queue. */
  readonly agent: string
  readonly purses: ReadonlyArray<Purse>
  /** Whether a purse reserves the most that it can cost. */
  readonly isCapped: boolean
  /** The longest wait of an attempt, in milliseconds. */
  readonly maxWait: number
  /** The time after which no attempt begins, in milliseconds of the clock. */
  readonly deadline: number
  readonly startedAt: number
  /** The retry budget of the caller if it has one, otherwise that of the governor or of the process. */
  readonly tokens: RetryTokens
  /** The scope that ends a call which outlives its effect. */
  within: Scope.Scope | undefined
  readonly isTraced: boolean
  span: Tracer.Span | undefined = undefined
  /** Whether it is counted in its pool. */
  hasBegun = false
  /** Whether it is counted in its retry budget, because an attempt may follow. */
  private isTrying = false

  // The history of its attempts

  /** The number of attempts that were sent. */
  attempts = 0
  /** Milliseconds in the queue. */
  queued = 0
  /** Milliseconds between the attempts. */
  waited = 0
  /** The tokens of its prompt, if they were counted. */
  counted: number | undefined = undefined
  /** The limit that the last rejection hit. */
  limit: Limits.Dimension | undefined = undefined
  /** Its place in the parking, if it was parked. */
  parked: ParkingPlace | undefined = undefined
  /** The error of the last attempt, and when it failed. */
  failure: unknown = undefined
  failedAt = 0

  constructor(
    parts: GovernorParts,
    request: Call,
    options: CallOptions,
    context: Context.Context<never>,
    within: Scope.Scope | undefined
  ) {
    const { agent = Context.get(context, Budget.Agent), maxWait, purses } = options
    const around = Context.get(context, Purses)
    this.parts = parts
    this.request = request
    this.options = options
    this.clock = Context.get(context, Clock.Clock)
    this.placement = request.places && parts.places?.placementOf(request.places, request, options)
    this.agent = agent
    this.purses = purses === undefined ? around : [...around, ...purses]
    this.isCapped = this.purses.some(reservesMost)
    // Here, because the call may wait long, and must not keep its prompt in memory.
    if (request.prefixes instanceof ReadPrefixes) {
      if (this.isCapped) request.prefixes.read()
      else request.prefixes.content = undefined
    }
    this.maxWait = maxWait === undefined ? Infinity : millisOf(maxWait)
    this.deadline = Context.get(context, Deadline) ?? Infinity
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    this.tokens = tokensOf(Context.get(context, RetryBudget) ?? parts.retryBudget, this.clock)
    this.within = within
    this.isTraced = isTraced(context)
  }

  get now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /** Counts the call in its retry budget. */
  startTrying(now: number): void {
    this.isTrying = true
    this.tokens.begin(now)
  }

  /** No attempt follows: the last one has ended, or its answer has begun. */
  stopTrying(now: number): void {
    if (this.isTrying) this.tokens.end(now)
    this.isTrying = false
  }
}
