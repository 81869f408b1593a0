/**
 * Plays a pool of the library move by move under a stopped clock, and records everything that callers see. The history of moves
 * determines the state, so replaying it gives the same state.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"
import type * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import { countsOf } from "../../src/budget/metrics.ts"
import type { PoolOptions } from "../../src/budget/opening.ts"
import { Pool } from "../../src/budget/pool.ts"
import type { Entry, Queueing } from "../../src/budget/entry.ts"
import * as Waker from "../../src/line/waker.ts"
import { clockOf } from "../../benchmark/weather/virtualTime.ts"
import type { Limit } from "../support/ledger.ts"

/** The code under test: the library's, or a broken copy of it. */
export interface Code {
  readonly Pool: typeof Pool
  readonly Pacer: typeof Pacer
  readonly Waker: typeof Waker
}

export const library: Code = { Pool, Pacer, Waker }

/** What the code of a careless caller throws. */
class Harm extends Error {}

/** How a call ends: it used its estimate, nothing, half or twice of it; its usage is unknown; or it failed. */
export type Ending = "used" | "none" | "half" | "twice" | "kept" | "gone" | "rejected" | "overloaded" | "ramp"

/**
 * One event. `ask`: an agent makes a call of one of the scope's sizes; with `front` it is the first of its agent. `end`: an
 * admitted call ends; `gone` is one whose caller left before it was resumed. `leave`: a waiting caller leaves. Calls are
 * numbered in the order in which they are made.
 */
export type Move =
  | readonly ["ask", agent: string, size: number, priority?: number, front?: "front"]
  | readonly ["end", call: number, how: Ending]
  | readonly ["leave", call: number]
  | readonly ["tick", millis: number]
  | readonly ["resize", setting: number]
  | readonly ["pause", millis: number]
  | readonly ["headers", remaining: number]
  | readonly ["close"]

export type History = ReadonlyArray<Move>

/** A setting of the pool; the checkers have its figures from {@link statedOf}. */
export interface Setting {
  readonly limits: Limits.Limits
  readonly concurrency?: number
}

/** A small world, and what may happen in it. */
export interface Scope {
  readonly name: string
  /** The first one applies at the beginning; `resize` sets the others. */
  readonly settings: readonly [Setting, ...ReadonlyArray<Setting>]
  readonly agents: ReadonlyArray<string>
  /** The jobs and callers of agents that have any. */
  readonly owners?: Readonly<Record<string, { readonly job?: string; readonly caller?: string }>>
  readonly sizes: ReadonlyArray<Limits.Estimate>
  readonly priorities?: ReadonlyArray<number>
  /** Whether a call may be put first among those of its agent. */
  readonly fronts?: boolean
  /** The number of calls at most. */
  readonly calls: number
  readonly endings: ReadonlyArray<Ending>
  readonly leaves?: boolean
  /** Agents whose callers end their calls as soon as they resume, and throw. */
  readonly careless?: ReadonlyArray<string>
  /** Whether the pool may be closed. */
  readonly closes?: boolean
  readonly ticks: ReadonlyArray<number>
  readonly pauses?: ReadonlyArray<number>
  /** What headers say is left of tokens, of a limit of 600 a minute. */
  readonly headers?: ReadonlyArray<number>
}

/** Whether only the user's limits hold calls back in a scope; a ledger then says exactly which calls may go. */
export const isCalm = ({ endings, headers, pauses }: Scope): boolean =>
  headers === undefined &&
  pauses === undefined &&
  !endings.some((ending) => ending === "rejected" || ending === "overloaded" || ending === "ramp")

/** The figures of a limit as the documentation of `Limits` has them. */
export const statedOf = ({ burst = 0, perMinute, perSecond, total, window }: Limits.Limit): Limit => {
  if (total !== undefined) return { burst: total, rate: 0, window: undefined }
  if (window === "sliding") return { burst, rate: (perMinute! - burst) / 60_000, window: perMinute }
  return { burst, rate: perSecond! / 1_000, window: undefined }
}

/** A call as its caller sees it. */
export interface Call {
  readonly id: number
  readonly agent: string
  readonly priority: number
  readonly charge: Amounts.Whole
  readonly askedAt: number
  waiter: Entry | undefined
  held: Entry | undefined
  /** Why it was refused. */
  refusal: string | undefined
  hasLeft: boolean
  grantedAt: number | undefined
  endedAt: number | undefined
  /** The setting when it was admitted. */
  setting: Setting | undefined
  /** The moves in which it was admitted and ended, which order them within a millisecond. */
  grantedIn: number
  endedIn: number
  used: Amounts.Whole | undefined
}

/** What happened in one move, for the laws of order. */
export interface Step {
  readonly move: Move
  /** The calls that waited before it, and the next call of all according to the pool. */
  readonly before: ReadonlyArray<Call>
  readonly headBefore: Call | undefined
  readonly granted: Array<Grant>
}

/** A call that was admitted, and the state of the queue then. */
export interface Grant {
  readonly call: Call
  /** The first of its agent and priority. */
  readonly first: Call | undefined
  /** The calls that still wait. */
  readonly waiting: ReadonlyArray<Call>
  /** The calls in flight, this one among them. */
  readonly open: number
}

interface Timer {
  readonly at: number
  readonly run: Effect.Effect<void>
}

const half = (amount: number): number => amount / 2
const twice = (amount: number): number => 2 * amount

/** A limit of the provider that delays no call, so that only the user's limits do. */
const generous: Pacer.Readings = Amounts.mapDimensions(Amounts.nothing, () => ({
  limit: 1e9,
  remaining: 1e12,
  roundedTo: 1
}))

export class Play {
  readonly scope: Scope
  readonly code: Code
  readonly pool: Pool
  readonly calls: Array<Call> = []
  readonly steps: Array<Step> = []
  /** The settings, and since when they apply. */
  readonly settings: Array<{ readonly from: number; readonly setting: Setting }>
  private lines = new Map<string, Array<Call>>()
  timers: Array<Timer> = []
  pausedUntil = 0
  now = 0
  /** The number of steps at the end of which the pool was closed. */
  closedIn = Infinity
  /** How often a careless caller threw, and how often that was reported. */
  thrown = 0
  reported = 0
  /** A call whose code ran inside the pool. */
  ranInside: Call | undefined = undefined
  private isInside = false
  /** The tasks that are due, by dispatcher. */
  private batches: Array<Array<() => void>> = []

  constructor(code: Code, scope: Scope) {
    const counts = countsOf("proof", Context.empty())
    counts.users.clear()
    this.scope = scope
    this.code = code
    const [setting] = scope.settings
    this.settings = [{ from: 0, setting }]
    const clock = clockOf(
      () => this.now,
      () => Effect.die("nobody sleeps here")
    )
    const options: PoolOptions = {
      name: "proof",
      kind: "proof",
      limits: setting.limits,
      concurrency: { max: setting.concurrency ?? Infinity, isMeasured: false },
      maxQueued: Infinity,
      counts,
      clock,
      sharing: undefined,
      id: "proof",
      after: (wait, run) => {
        const timer = { at: this.now + wait, run }
        this.timers.push(timer)
        return () => void this.timers.splice(this.timers.indexOf(timer), 1)
      },
      wake: code.Waker.make(this.scheduler),
      changed: () => {},
      observer: undefined
    }
    this.pool = new code.Pool(options)
    if (!isCalm(scope)) return
    this.pool.observe(generous, undefined)
    this.now = 1_000
  }

  /** Its tasks run when the pool has returned. As in Effect's, one that throws takes the rest of its batch with it. */
  private get scheduler(): Scheduler.Scheduler {
    const makeDispatcher = () => {
      let batch: Array<() => void> = []
      const scheduleTask = (task: () => void): void => {
        if (!this.batches.includes(batch)) this.batches.push((batch = []))
        batch.push(task)
      }
      return { scheduleTask, flush: () => {} }
    }
    return { executionMode: "async", shouldYield: () => false, makeDispatcher }
  }

  /** Runs what is due. */
  private resume(): void {
    this.isInside = false
    for (let batch = this.batches.shift(); batch !== undefined; batch = this.batches.shift()) {
      try {
        for (const task of batch) task()
      } catch (error) {
        if (!(error instanceof Harm)) throw error
        this.reported++
      }
    }
    this.isInside = true
  }

  get setting(): Setting {
    return this.settings.at(-1)!.setting
  }
  get open(): ReadonlyArray<Call> {
    return this.calls.filter(({ endedAt, held }) => held !== undefined && endedAt === undefined)
  }
  get waiting(): ReadonlyArray<Call> {
    return this.calls.filter(({ hasLeft, held, refusal }) => held === undefined && refusal === undefined && !hasLeft)
  }
  /** The waiting calls, those of each agent in the order in which they should be admitted. */
  get inLine(): ReadonlyArray<Call> {
    return Array.from(this.lines.keys())
      .sort()
      .flatMap((key) => this.lines.get(key)!)
  }
  /** The next call, according to the pool. */
  get head(): Call | undefined {
    const waiter = this.pool.waiting(1)[0]?.waiter
    return waiter === undefined ? undefined : this.calls.find((call) => call.waiter === waiter)
  }
  /** The waiting callers of an agent and a priority, in the order in which they should be admitted. */
  private lineOf({ agent, priority }: Call): Array<Call> {
    const key = `${agent} ${priority}`
    const line = this.lines.get(key) ?? []
    this.lines.set(key, line)
    return line
  }

  // ---------------------------------------------------------------------------
  // Moves
  // ---------------------------------------------------------------------------

  play(move: Move): void {
    const step: Step = { move, before: this.waiting, headBefore: this.head, granted: [] }
    this.steps.push(step)
    this.isInside = true
    try {
      this.happen(move)
    } catch (error) {
      // It was thrown inside the pool, and so reached another caller.
      if (!(error instanceof Harm)) throw error
    }
    this.resume()
  }

  private happen(move: Move): void {
    switch (move[0]) {
      case "ask":
        return this.ask(move[1], this.scope.sizes[move[2]]!, move[3] ?? 0, move[4] === "front")
      case "end":
        return this.end(this.calls[move[1]]!, move[2])
      case "leave":
        return this.leave(this.calls[move[1]]!)
      case "tick":
        return this.tick(move[1])
      case "resize": {
        const setting = this.scope.settings[move[1]]!
        this.settings.push({ from: this.now, setting })
        return this.pool.resize(setting.limits, { max: setting.concurrency ?? Infinity, isMeasured: false })
      }
      case "pause":
        this.pausedUntil = Math.max(this.pausedUntil, this.now + move[1])
        return this.pool.pause("rateLimit", move[1])
      case "headers":
        return this.pool.observe({ tokens: { limit: 0.01, remaining: move[1], roundedTo: 1 } }, undefined)
      case "close":
        this.closedIn = this.steps.length
        return this.pool.shutDown()
    }
  }

  private ask(agent: string, estimate: Limits.Estimate, priority: number, first: boolean): void {
    const call: Call = {
      id: this.calls.length,
      agent,
      priority,
      charge: Amounts.wholeOf(estimate),
      askedAt: this.now,
      waiter: undefined,
      held: undefined,
      refusal: undefined,
      hasLeft: false,
      grantedAt: undefined,
      endedAt: undefined,
      setting: undefined,
      grantedIn: Infinity,
      endedIn: Infinity,
      used: undefined
    }
    this.calls.push(call)
    const line = this.lineOf(call)
    if (first) line.unshift(call)
    else line.push(call)
    const how: Queueing = { agent, ...this.scope.owners?.[agent], priority, weight: 1, first, maxWait: Infinity }
    const admission = this.pool.admit(estimate, how)
    if (admission.isOpen) return this.granted(call, admission)
    call.waiter = admission
    let isAsleep = false
    admission.listen(() => {
      if (isAsleep && this.isInside) this.ranInside ??= call
      // It has left, and its fiber is over.
      if (call.hasLeft) return
      if (admission.isOpen) this.granted(call, admission)
      else this.refused(call, String(admission.refusal))
      if (!isAsleep || this.scope.careless?.includes(agent) !== true) return
      if (call.held !== undefined) this.end(call, "used")
      this.thrown++
      throw new Harm()
    })
    isAsleep = true
  }

  private granted(call: Call, held: Entry): void {
    call.held = held
    call.grantedAt = this.now
    call.grantedIn = this.steps.length
    call.setting = this.setting
    const [first] = this.lineOf(call)
    this.stepOut(call)
    this.steps.at(-1)!.granted.push({ call, first, waiting: this.waiting, open: this.open.length })
  }

  private refused(call: Call, reason: string): void {
    call.refusal = reason
    this.stepOut(call)
  }

  /** A call no longer waits. */
  private stepOut(call: Call): void {
    const line = this.lineOf(call)
    const at = line.indexOf(call)
    if (at >= 0) line.splice(at, 1)
  }

  private end(call: Call, how: Ending): void {
    const { charge, held, waiter } = call
    const times = (factor: (amount: number) => number): Amounts.Whole => ({
      requests: charge.requests,
      inputTokens: factor(charge.inputTokens),
      outputTokens: factor(charge.outputTokens),
      tokens: factor(charge.tokens)
    })
    call.endedAt = this.now
    call.endedIn = this.steps.length
    call.used = Amounts.nothing
    const settle = (used: Amounts.Whole): void => {
      call.used = used
      this.pool.settle(held!, used, "success")
    }
    const fail = (reason: "rateLimit" | "overload" | "ramp"): void =>
      void this.pool.fail(held!, { reason, retryAfter: undefined, readings: undefined, used: Amounts.nothing })
    switch (how) {
      case "used":
        settle(charge)
        break
      case "none":
        settle(Amounts.nothing)
        break
      case "half":
        settle(times(half))
        break
      case "twice":
        settle(times(twice))
        break
      case "kept":
        call.used = charge
        this.pool.keep(held!, false)
        break
      case "gone":
        if (waiter === undefined) this.pool.settle(held!, Amounts.nothing, "failure")
        else this.pool.cancel(waiter)
        break
      case "rejected":
        fail("rateLimit")
        break
      case "overloaded":
        fail("overload")
        break
      case "ramp":
        fail("ramp")
    }
    if (how === "gone") return
    // Only the first end counts.
    this.pool.settle(held!, Amounts.nothing, "failure")
    this.pool.keep(held!, true)
  }

  private leave(call: Call): void {
    call.hasLeft = true
    this.stepOut(call)
    this.pool.cancel(call.waiter!)
  }

  private tick(millis: number): void {
    const until = this.now + millis
    for (let next = this.nextTimer(); next !== undefined && next.at <= until; next = this.nextTimer()) {
      this.timers.splice(this.timers.indexOf(next), 1)
      this.now = next.at
      Effect.runSync(next.run)
      this.resume()
    }
    this.now = until
  }

  nextTimer(): Timer | undefined {
    return this.timers.reduce<Timer | undefined>(
      (first, timer) => (first === undefined || timer.at < first.at ? timer : first),
      undefined
    )
  }

  // ---------------------------------------------------------------------------
  // What may happen next
  // ---------------------------------------------------------------------------

  moves(): ReadonlyArray<Move> {
    const { agents, calls, closes, endings, fronts, headers, leaves, pauses, priorities, settings, sizes, ticks } =
      this.scope
    const moves: Array<Move> = []
    // A closed budget does not ask its pools.
    if (this.calls.length < calls && this.closedIn === Infinity) {
      for (const agent of agents) {
        for (const size of sizes.keys()) {
          if (priorities === undefined) moves.push(["ask", agent, size])
          else for (const priority of priorities) moves.push(["ask", agent, size, priority])
          if (fronts === true) moves.push(["ask", agent, size, 0, "front"])
        }
      }
    }
    for (const { id } of this.open) for (const how of endings) moves.push(["end", id, how])
    if (leaves === true) for (const { id } of this.waiting) moves.push(["leave", id])
    for (const millis of ticks) moves.push(["tick", millis])
    for (const [n, setting] of settings.entries()) if (setting !== this.setting) moves.push(["resize", n])
    for (const millis of pauses ?? []) moves.push(["pause", millis])
    for (const remaining of headers ?? []) moves.push(["headers", remaining])
    if (closes === true && this.closedIn === Infinity) moves.push(["close"])
    return moves
  }
}

export const replay = (code: Code, scope: Scope, history: History): Play => {
  const play = new Play(code, scope)
  for (const move of history) play.play(move)
  return play
}
