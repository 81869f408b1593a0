/** A governor's record of each pool: how many of its calls usually run, and whether its provider can be reached. */
import * as Context from "effect/Context"
import { type CallCounts, callCountsOf } from "../budget/metrics.ts"
import { maxIdlePools, nameIn, PoolRegistry } from "../budget/registry.ts"
import type * as Accounting from "../Accounting.ts"
import type { TokenBudget } from "../Budget.ts"
import { useOrMake } from "../domain/input/lru.ts"
import { duration, type GenAiCounts, genAiCountsOf, tokenUsage } from "./genAi.ts"
import type { Call, CallEnd } from "./models.ts"
import type { ReportedUsage } from "./reported.ts"

/** The same weight as the estimator's averages: about the last ten admissions count. */
const weight = 1 / 8

/**
 * How long a provider that has never answered may refuse connections before its address counts as wrong, in milliseconds. A server that
 * starts together with its clients accepts connections sooner. With 0 the first call fails, and its error is the only one to tell it.
 */
export const RefusedMillis: Context.Reference<number> = Context.Reference<number>("floodgate/call/RefusedMillis", {
  defaultValue: () => 60_000
})

/** How far a failed call got: the provider answered, its address or host name is unknown, or it refused the connection. */
export type Reach = "answered" | "unknown" | "refused"

export class PoolRecord {
  readonly name: string
  /** The name without the account. */
  readonly kind: string
  /** The account as the budget knows it: a tier with limits of its own counts as one. */
  readonly account: string | undefined
  readonly counts: CallCounts
  private readonly genAi: GenAiCounts
  private open = 0
  /** The number of calls that have begun and not ended. They may wait in the queue, or between attempts. */
  users = 0
  /** Whether the provider has refused its credential in every answer; undefined before the first answer. */
  isDenied: boolean | undefined = undefined
  private refusedSince: number | undefined = undefined
  private readonly refusedMillis: number
  private hasTold: boolean
  /** How many calls usually run at the same time: a moving average over admissions, this call included. */
  usual = 1
  /** Whether the provider has answered at least once. */
  hasAnswered = false

  constructor(name: string, kind: string, account: string | undefined, context: Context.Context<never>) {
    this.name = name
    this.kind = kind
    this.account = account
    this.counts = callCountsOf(name, context).join(this)
    this.genAi = genAiCountsOf(context)
    this.refusedMillis = Context.get(context, RefusedMillis)
    this.hasTold = this.refusedMillis === 0
  }

  /** Counts the usage of an answered call. */
  used(
    call: Call,
    answeredBy: string | undefined,
    { actual, isCounted, prompt }: ReportedUsage,
    input: Parameters<CallCounts["used"]>[1]
  ): void {
    this.counts.used(actual, input)
    if (isCounted) this.genAi.count(tokenUsage, call, answeredBy, "input", prompt)
    if (actual.outputTokens > 0) this.genAi.count(tokenUsage, call, answeredBy, "output", actual.outputTokens)
  }

  /** Counts a call that has ended. */
  over(call: Call, answeredBy: string | undefined, seconds: number, { failure, outcome }: CallEnd): void {
    this.counts.ended(outcome, seconds)
    this.genAi.count(duration, call, answeredBy, failure, seconds)
  }

  began(): void {
    this.open++
    this.usual += (this.open - this.usual) * weight
  }

  ended(): void {
    this.open--
  }

  /** Removes its metrics when it is evicted. */
  forget(): void {
    this.counts.leave(this)
    this.counts.forget()
  }

  get isIdle(): boolean {
    return this.users === 0 && this.open === 0
  }

  /**
   * Whether a call failed because the address is wrong. If the provider has answered before, it is down, and calls wait for it.
   * Otherwise the address is wrong if it has no such host, or one without this encryption, or if it has refused connections for a minute. A resolver that
   * fails temporarily (`EAI_AGAIN`) proves nothing.
   */
  isWrongAddress(reach: Reach | undefined, now: number): boolean {
    if (reach === "answered") this.hasAnswered = true
    if (this.hasAnswered) return false
    if (reach !== "refused") return reach === "unknown"
    this.refusedSince ??= now
    return now - this.refusedSince >= this.refusedMillis
  }

  /** Whether this is the first call that could not connect to a provider that has never answered. */
  isNews(reach: Reach | undefined): boolean {
    if (this.hasTold || this.hasAnswered || (reach !== "refused" && reach !== "unknown")) return false
    this.hasTold = true
    return true
  }
}

/** The records of the pools that a governor has used. */
export class PoolRecords {
  private readonly records = new PoolRegistry<PoolRecord>(
    ({ isIdle }) => isIdle,
    (record) => record.forget()
  )
  private readonly context: Context.Context<never>

  /** Metrics go to the registry of the context. */
  constructor(context: Context.Context<never>) {
    this.context = context
  }

  /** The record of a call's pool, which the budget names. If it names none, the accounting does. */
  of(budget: TokenBudget["Service"], accounting: Accounting.Accounting, call: Call): PoolRecord {
    const { model, tier } = call
    const account = tier === undefined ? call.account : [call.account ?? [], tier].flat().join("/")
    const named = budget.poolOf(model)
    const kind = named === model ? (accounting.poolOf?.(model) ?? named) : named
    const name = nameIn(account, kind)
    return useOrMake(this.records, name, maxIdlePools, () => new PoolRecord(name, kind, account, this.context))
  }

  /** Notes the end of a call. */
  released(record: PoolRecord): void {
    record.users--
    if (record.isDenied === true) this.records.denied(record)
  }
}
