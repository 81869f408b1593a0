/** The last requests: who called which model, how long it took, what it cost, and how it ended. They hold neither content nor keys. */
import type { ServerResponse } from "node:http"
import { Amounts, type Refusing } from "floodgate/internal"
import { hint } from "floodgate/internal/nearest"
import { outcome } from "./endpointSchemas.ts"
import type { Bill, Caller } from "./callers.ts"
import { matcherOf } from "./names.ts"
import type { RequestOutcome, RequestRecord } from "./page/status.ts"

/** How many requests are remembered. */
export const maxRequests = 500
/** The number of those that may come from strangers, who must not be able to push the others out. */
const maxStrangers = 50
/** Names come from callers. */
const longestName = 200

/** The most recent values. */
class Ring<A> {
  private readonly slots: Array<A> = []
  private next = 0
  private readonly size: number

  constructor(size: number) {
    this.size = size
  }

  add(value: A): void {
    this.slots[this.next] = value
    this.next = (this.next + 1) % this.size
  }

  /** The values, the newest first. */
  get newest(): ReadonlyArray<A> {
    return [...this.slots.slice(this.next), ...this.slots.slice(0, this.next)].reverse()
  }
}

/** A request on its way. It is mutable, and costs nothing for each chunk of its answer. */
export class OpenRequest {
  readonly at: number
  isStranger = true
  upstream: string | null = null
  model: string | null = null
  caller: string | null = null
  agent: string | null = null
  job: string | null = null
  place: string | null = null
  outcome: RequestOutcome | undefined = undefined
  status: number | null = null
  reason: Refusing.Refusal["kind"] | null = null
  attempts = 0
  private sentAt: number | undefined = undefined
  endedAt = 0
  private inputTokens: number | null = null
  private cachedTokens: number | null = null
  private outputTokens: number | null = null
  private dollars: number | null = null

  constructor(at: number) {
    this.at = at
  }

  /** Notes whose request it is. */
  by({ agent, caller, job }: Caller): void {
    this.isStranger = false
    this.caller = caller.name
    this.job = job.name.slice(0, longestName)
    this.agent = agent.slice(0, longestName)
  }

  goesTo(upstream: string): void {
    this.upstream = upstream
  }

  /** Notes for which model it is. */
  asks(model: string): void {
    this.model = model.slice(0, longestName)
  }

  sent(now: number): void {
    this.attempts++
    this.sentAt = now
  }

  ended(outcome: RequestOutcome, reason?: Refusing.Refusal["kind"], place?: string): void {
    this.outcome = outcome
    this.reason = reason ?? null
    this.place = place ?? this.place
  }

  /** Adds what an attempt has used. The bill of a request that its client has left may arrive after its end. */
  readonly billed = ({ actual, dollars }: Bill): void => {
    this.inputTokens = (this.inputTokens ?? 0) + Amounts.promptTokens(actual)
    this.cachedTokens = (this.cachedTokens ?? 0) + (actual.cacheReadTokens ?? 0)
    this.outputTokens = (this.outputTokens ?? 0) + actual.outputTokens
    if (dollars !== undefined) this.dollars = (this.dollars ?? 0) + dollars
  }

  get record(): RequestRecord {
    const { agent, at, attempts, cachedTokens, caller, dollars, endedAt, inputTokens, job, model, outputTokens } = this
    const { outcome = "hung up", place, reason, sentAt = endedAt, status, upstream } = this
    const tokens = { inputTokens, cachedTokens, outputTokens }
    const times = { waitedMillis: sentAt - at, millis: endedAt - at }
    return {
      at,
      upstream,
      model,
      caller,
      job,
      agent,
      place,
      outcome,
      status,
      reason,
      attempts,
      ...times,
      ...tokens,
      dollars
    }
  }
}

/** The filters of a query. In a text, `*` stands for any characters. */
const filters = ["caller", "agent", "model", "outcome"] as const
const parameters: ReadonlyArray<string> = [...filters, "limit"]

/** The problem with the parameters of a query; undefined if there is none. */
const problemOf = (query: URLSearchParams): string | undefined => {
  const unknown = [...query.keys()].find((name) => !parameters.includes(name))
  if (unknown !== undefined) return `unknown parameter "${unknown.slice(0, longestName)}": ${hint(unknown, parameters)}`
  const long = [...query].find(([, value]) => value.length > longestName)
  if (long !== undefined) return `${long[0]}: expected at most ${longestName} characters`
  const limit = query.get("limit") ?? "1"
  if (!/^\d{1,4}$/.test(limit) || Number(limit) < 1 || Number(limit) > maxRequests)
    return `limit: expected an integer from 1 to ${maxRequests}`
  const value = query.get("outcome")
  const { literals } = outcome
  if (value === null || (literals as ReadonlyArray<string>).includes(value)) return undefined
  return `outcome: expected one of ${literals.join(", ")}`
}

/** The requests that have ended lately. It is mutable. */
export class RecentRequests {
  private readonly callers = new Ring<OpenRequest>(maxRequests - maxStrangers)
  private readonly strangers = new Ring<OpenRequest>(maxStrangers)
  private readonly now: () => number

  constructor(now: () => number) {
    this.now = now
  }

  open(): OpenRequest {
    return new OpenRequest(this.now())
  }

  /**
   * Adds a request that has ended. Without another outcome its client has left, or did not read the whole answer. `caller` is
   * undefined if it was not let in.
   */
  close(request: OpenRequest, response: ServerResponse, caller: Caller | undefined): void {
    if (caller !== undefined) request.by(caller)
    request.endedAt = this.now()
    request.status = response.headersSent ? response.statusCode : null
    const { outcome } = request
    if ((outcome === "answered" || outcome === "passed") && !response.writableFinished) request.ended("hung up")
    const ring = request.isStranger ? this.strangers : this.callers
    ring.add(request)
  }

  /** The requests that a query asks for, the newest first, or what is wrong with it. */
  find(query: URLSearchParams): ReadonlyArray<RequestRecord> | string {
    const problem = problemOf(query)
    if (problem !== undefined) return problem
    const matchers = filters.map((name) => [name, matcherOf(query.get(name) ?? undefined)] as const)
    const found = [...this.callers.newest, ...this.strangers.newest]
      .sort((one, other) => other.endedAt - one.endedAt)
      .map(({ record }) => record)
      .filter((record) => matchers.every(([name, isMatch]) => isMatch(record[name] ?? "")))
    return found.slice(0, Number(query.get("limit") ?? maxRequests))
  }
}
