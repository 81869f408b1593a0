/**
 * Records a run for its report: each call of an agent, each request, and the levels of the budget.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import type { LlmError } from "floodgate/LlmError"
import type { LlmProvider } from "floodgate/LlmProvider"
import type { Report } from "@floodgate/lab/internal"
import type { RunEvent } from "./pipeline.ts"
import * as Results from "./results.ts"

/** Records a run. */
export interface RunRecorder {
  readonly recorded: Report.Run.RunRecord
  /** Opens and closes calls. */
  readonly observe: (event: RunEvent) => Effect.Effect<void>
  /** Wraps a provider, to record every request. */
  readonly wrap: (provider: LlmProvider["Service"]) => LlmProvider["Service"]
  /** Samples the budget twice a second until the scope closes, and once more then. */
  readonly sample: Effect.Effect<void, never, Budget.TokenBudget | Scope.Scope>
}

const outcomeOf = (exit: Exit.Exit<unknown, LlmError>): Report.Run.RunAttempt["outcome"] => {
  if (Exit.isSuccess(exit)) return "ok"
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  if (error !== undefined) return error.status === 429 ? "rejected" : "failed"
  return Exit.hasInterrupts(exit) ? "interrupted" : "failed"
}

/** A provider whose requests are recorded as attempts of the open calls. */
const recording = (
  provider: LlmProvider["Service"],
  now: Effect.Effect<number>,
  open: ReadonlyMap<string, Report.Run.RunCall>,
  reserved: ReadonlyMap<string, Limits.Usage>
): LlmProvider["Service"] => ({
  ...provider,
  create: Effect.fnUntraced(function* (params) {
    const agent = yield* Budget.Agent
    const attempt: Report.Run.RunAttempt = {
      startedAt: yield* now,
      endedAt: undefined,
      outcome: "open",
      charge: reserved.get(agent),
      usage: undefined
    }
    open.get(agent)?.attempts.push(attempt)
    return yield* Effect.onExit(provider.create(params), (exit) =>
      Effect.map(now, (at) => {
        attempt.endedAt = at
        attempt.outcome = outcomeOf(exit)
        if (Exit.isSuccess(exit)) attempt.usage = Results.tokensOf(exit.value.value.usage)
      })
    )
  })
})

/** A recorder. Its time starts with the first event, so that reading documents does not count. */
export const make = (): RunRecorder => {
  let startedAt: number | undefined
  const now = Effect.map(Clock.currentTimeMillis, (millis) => millis - (startedAt ??= millis))
  const calls: Array<Report.Run.RunCall> = []
  const levels: Array<Report.Run.LevelSample> = []
  const outcomes = new Map<string, Report.Run.AgentOutcome>()
  const earlier: Array<Report.Run.Earlier> = []
  const recorded = { calls, levels, outcomes, earlier }
  /** An agent makes one call at a time. */
  const open = new Map<string, Report.Run.RunCall>()
  /** The reservation of the request that an agent sends next. */
  const reserved = new Map<string, Limits.Usage>()

  const close = (agent: string, at: number, outcome: Report.Run.RunCall["outcome"]): void => {
    const call = open.get(agent)
    if (call === undefined) return
    open.delete(agent)
    call.endedAt = at
    call.outcome = outcome
  }

  const observe = (event: RunEvent) =>
    Effect.map(now, (at) => {
      if (event.event === "paused") return
      const { agent } = event
      switch (event.event) {
        case "asked": {
          const call: Report.Run.RunCall = {
            call: { agent },
            askedAt: at,
            endedAt: undefined,
            outcome: "open",
            attempts: []
          }
          open.set(agent, call)
          calls.push(call)
          return
        }
        case "admitted":
          reserved.set(agent, event.charge)
          return
        case "failed":
          return
        case "answered":
          if (event.reused) {
            const { inputTokens, outputTokens, when } = event
            earlier.push({ agent, usage: { inputTokens, outputTokens }, when })
          }
          close(agent, at, "ok")
          return
        case "ended":
          outcomes.set(agent, event.how)
          // The call of a stopped agent has neither succeeded nor failed.
          close(agent, at, event.how === "failed" ? "failed" : "open")
      }
    })

  const look = Effect.gen(function* () {
    const budget = yield* Budget.TokenBudget
    const [pool] = Object.values((yield* budget.status).pools)
    if (pool === undefined) return
    const at = yield* now
    // The last sample may be taken in the same millisecond as the one before.
    if (levels.at(-1)?.at === at) levels.pop()
    levels.push({ at, dimensions: pool.dimensions })
  })

  return {
    recorded,
    observe,
    wrap: (provider) => recording(provider, now, open, reserved),
    // Also at the end, because a short run learns its limits from its last responses.
    sample: Effect.andThen(
      Effect.addFinalizer(() => look),
      Effect.asVoid(Effect.forkScoped(Effect.repeat(look, Schedule.spaced("500 millis"))))
    )
  }
}
