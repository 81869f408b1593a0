/**
 * Writes down what happens in a run, for its report: each call of an agent, each request, and what the budget has left.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Budget from "../../Budget.ts"
import type { LlmError } from "../../LlmError.ts"
import type { LlmProvider } from "../../LlmProvider.ts"
import type { Report } from "../../lab/index.ts"
import type { Event } from "./pipeline.ts"
import * as Results from "./results.ts"

/** What was written down so far, and what writes it. */
export interface Recorder {
  readonly recorded: Report.Run.Recorded
  /** Opens and closes calls. */
  readonly observe: (event: Event) => Effect.Effect<void>
  /** A provider of which every request is written down. */
  readonly wrap: (provider: LlmProvider["Service"]) => LlmProvider["Service"]
  /** Looks at the budget twice a second for as long as the scope lasts. */
  readonly sample: Effect.Effect<void, never, Budget.TokenBudget | Scope.Scope>
}

const outcomeOf = (exit: Exit.Exit<unknown, LlmError>): Report.Run.Attempt["outcome"] => {
  if (Exit.isSuccess(exit)) return "ok"
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  if (error !== undefined) return error.status === 429 ? "rejected" : "failed"
  return Exit.hasInterrupts(exit) ? "interrupted" : "failed"
}

/** A recorder whose time starts now. */
export const make: Effect.Effect<Recorder> = Effect.gen(function* () {
  const startedAt = yield* Clock.currentTimeMillis
  const now = Effect.map(Clock.currentTimeMillis, (millis) => millis - startedAt)
  const calls: Array<Report.Run.Call> = []
  const levels: Array<Report.Run.Look> = []
  /** An agent makes one call at a time. */
  const open = new Map<string, Report.Run.Call>()

  const observe = (event: Event) =>
    Effect.map(now, (at) => {
      if (event.event === "asked") {
        const call = {
          call: { agent: event.agent },
          askedAt: at,
          endedAt: undefined,
          outcome: "open" as const,
          attempts: []
        }
        open.set(event.agent, call)
        calls.push(call)
        return
      }
      const call = open.get(event.agent)
      if (call === undefined || event.event === "admitted" || event.event === "failed") return
      open.delete(event.agent)
      call.endedAt = at
      call.outcome = event.event === "answered" ? "ok" : "failed"
    })

  const wrap = (provider: LlmProvider["Service"]): LlmProvider["Service"] => ({
    ...provider,
    create: Effect.fnUntraced(function* (params) {
      const attempt: Report.Run.Attempt = {
        startedAt: yield* now,
        endedAt: undefined,
        outcome: "open",
        usage: undefined
      }
      open.get(yield* Budget.Agent)?.attempts.push(attempt)
      return yield* Effect.onExit(provider.create(params), (exit) =>
        Effect.map(now, (at) => {
          attempt.endedAt = at
          attempt.outcome = outcomeOf(exit)
          if (Exit.isSuccess(exit)) attempt.usage = Results.tokensOf(exit.value.value.usage)
        })
      )
    })
  })

  const look = Effect.gen(function* () {
    const budget = yield* Budget.TokenBudget
    const [pool] = Object.values((yield* budget.status).pools)
    if (pool !== undefined) levels.push({ at: yield* now, dimensions: pool.dimensions, pace: pool.pace })
  })

  return {
    recorded: { calls, levels },
    observe,
    wrap,
    sample: Effect.asVoid(Effect.forkScoped(Effect.repeat(look, Schedule.spaced("500 millis"))))
  }
})
