/** One attempt of a governed call: where it goes, what it holds, and what was observed of it. */
import * as Duration from "effect/Duration"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import { Entry } from "../budget/entry.ts"
import type { Verdict } from "../budget/models.ts"
import * as Reservation from "../budget/reservation.ts"
import type * as Limits from "../Limits.ts"
import type { SentCall } from "../domain/placeCalls.ts"
import type { Placement } from "../places/placement.ts"
import type * as Prices from "../Prices.ts"
import type { GovernedCall } from "./governedCall.ts"
import type { Call, FailureReport } from "./models.ts"
import type { Payment } from "./payment.ts"
import { callAt } from "./place.ts"
import type { PoolRecord } from "./pool.ts"
import type { ReportedUsage } from "./reported.ts"
import * as Trace from "./trace.ts"
import type * as Usage from "./usage.ts"

/** The hold of an attempt in its pool: its entry in the queue of the budget, or a reservation, if another layer has made it. */
export type Held = Entry | Budget.Reservation

/** How long it has waited. */
export const waitedMillis = (held: Held): number =>
  held instanceof Entry ? held.waitedMillis : Duration.toMillis(held.waited)

/** A failed attempt, with what the budget concludes from it. */
export interface JudgedFailure extends FailureReport {
  readonly verdict: Verdict | undefined
  readonly isWrongAddress: boolean
  /** When the long window is reset that is spent, in milliseconds since the epoch. */
  readonly resetsAt: number | undefined
}

/** The state of an attempt: it waits, is admitted, its request is sent, and it ends, which happens once. */
type Phase = "waiting" | "admitted" | "sent" | "settled"

/** After this many exhaustions in a row, a call lets the others of its agent go first. */
const maxExhaustions = 2

/** An attempt. The next one is another object, so code that still runs after the end of this one cannot change it. */
export class GovernedAttempt implements Usage.HeldCall {
  readonly call: GovernedCall
  /** The call as the place of the attempt has it. */
  request: Call
  accounting: Accounting.Accounting
  pool: PoolRecord
  /** The name of that place; undefined for a call without places. */
  place: string | undefined = undefined
  price: Prices.Price | undefined = undefined
  /** When it began to wait. */
  from = 0
  /** When its wait ends, by `maxWait` or by `last`. */
  until = Infinity
  /** The time after which it must not be sent, by the deadline or the retry policy. */
  last = Infinity
  /** Whether it is queued before the other calls of its agent. */
  isFirst = false
  /** The number of attempts in a row that met an empty bucket. */
  private exhaustions = 0
  phase: Phase = "waiting"
  known!: Usage.KnownCall
  estimate: Limits.Estimate = {}
  payment: Payment | undefined = undefined
  /** Undefined before it is queued, and while it waits in several queues. */
  held: Held | undefined = undefined
  private handedOut: Budget.Reservation | undefined = undefined
  /** Its scope, if anything has used it. */
  opened: Scope.Closeable | undefined = undefined
  sentAt = 0
  /** Whether it finds out if its place, which was left for slowness, has recovered. */
  isProbe = false
  sentCall: SentCall | undefined = undefined
  /** Whether the prefixes of its prompt are remembered, and the largest prompt that its answer has reported. */
  isRemembered = false
  /** The number of its prompt in its conversation. */
  turn: number | undefined = undefined
  prompt = 0
  observed: ReportedUsage | undefined = undefined
  /** The model that has answered. */
  answeredBy: string | undefined = undefined
  failed: JudgedFailure | undefined = undefined

  private constructor(call: GovernedCall, request: Call, accounting: Accounting.Accounting, pool: PoolRecord) {
    this.call = call
    this.request = request
    this.accounting = accounting
    this.pool = pool
  }

  /** The first attempt of a call. It begins at the only place of the call, if it has one. */
  static first(call: GovernedCall): GovernedAttempt {
    const { parts, placement } = call
    const only = placement?.only
    const request = only === undefined ? call.request : callAt(call.request, only)
    const accounting = request.accounting ?? parts.accounting
    return new GovernedAttempt(call, request, accounting, parts.pools.of(parts.budget, accounting, request))
  }

  /** The attempt after this one has failed. It begins where this one was made. */
  next(): GovernedAttempt {
    const { accounting, call, failed, pool, request } = this
    const attempt = new GovernedAttempt(call, request, accounting, pool)
    attempt.exhaustions = failed?.verdict === "exhausted" ? this.exhaustions + 1 : 0
    // A rejected call is queued before the others of its agent. After an outage it is not: the call may have caused the failure.
    // Nor is it after repeated exhaustions: another call may be smaller, and fit into what the bucket has.
    attempt.isFirst = failed?.verdict !== "outage" && attempt.exhaustions < maxExhaustions
    return attempt
  }

  /** Begins to wait. It must not be sent after `last`. The first attempt counts the call. */
  begin(last: number, now: number): this {
    const { call, pool } = this
    if (!call.hasBegun) {
      call.hasBegun = true
      pool.users++
    }
    this.from = now
    this.last = last
    this.until = Math.min(last, now + call.maxWait)
    return this
  }

  /** The latest reset until which it may be parked: the retry policy does not bound that. */
  get parkedUntil(): number {
    const { deadline, maxWait } = this.call
    return Math.min(deadline, this.from + maxWait)
  }

  /** Stays at the only place of its call. */
  stayAt(placement: Placement): void {
    const { call, pool } = this
    const { name } = placement.places[0]!
    placement.current = 0
    this.place = name
    const why = placement.isPinned ? "pinned" : "only"
    pool.counts.placed(1, why)
    if (call.span !== undefined) Trace.placed(call.span, name, pool.name, why)
  }

  /** Notes that it was admitted. */
  admit(held: Held): void {
    const { call, pool } = this
    call.parked?.leave()
    // A reservation or a tracer may throw, so both are read before anything is counted.
    const millis = waitedMillis(held)
    const { estimate } = held
    if (call.span !== undefined) Trace.admitted(call.span, held)
    if (held instanceof Entry) held.begin()
    this.held = held
    this.estimate = estimate
    if (call.request.countTokens !== undefined) this.forgetCount()
    this.phase = "admitted"
    call.limit = undefined
    call.queued += millis
    pool.began()
    pool.counts.queued(millis / 1_000)
  }

  /** Its prompt is not counted any more. The effect that counts keeps the prompt in memory, and reading the answer may take long. */
  private forgetCount(): void {
    const { call } = this
    this.request = { ...this.request, countTokens: undefined }
    call.request = { ...call.request, countTokens: undefined }
  }

  /** Notes that its request is about to be sent. */
  send(): void {
    const { call, pool } = this
    this.phase = "sent"
    this.sentAt = call.now
    call.attempts++
    if (call.placement !== undefined) {
      this.sentCall = call.parts.places!.memory.sent(
        pool.name,
        this.estimate.outputTokens ?? 0,
        this.isProbe,
        this.sentAt
      )
    }
    pool.counts.attempts++
  }

  /** The reservation as its caller gets it. */
  get reservation(): Budget.Reservation {
    const held = this.held!
    return (this.handedOut ??= held instanceof Entry ? Reservation.handOut(held) : held)
  }

  /** Holds what the attempt opens, and a reservation that a layer has made for it. */
  get scope(): Scope.Closeable {
    return (this.opened ??= Scope.makeUnsafe())
  }

  /** Whether the deadline bounds the wait, and not the call's `maxWait`. */
  get isBoundByDeadline(): boolean {
    return this.last - this.from < this.call.maxWait
  }
}
