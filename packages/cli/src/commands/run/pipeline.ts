/**
 * The pipeline of `floodgate run`: an agent per chunk with five calls each, and an orchestrator that merges their texts. It uses no
 * terminal and no files, so tests run it with any clock and any provider.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError } from "floodgate/LlmError"
import type { Params } from "floodgate/LlmProvider"
import { printable } from "@floodgate/gateway/internal/text"
import * as Results from "./results.ts"
import * as Split from "./split.ts"
import * as Steps from "./steps.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** An event of a run. */
export type RunEvent =
  | { readonly event: "asked"; readonly agent: string; readonly step: string }
  /** The budget admitted an attempt, and reserved `charge` for it. */
  | { readonly event: "admitted"; readonly agent: string; readonly step: string; readonly charge: Limits.Usage }
  /** An attempt that failed; another may follow. */
  | { readonly event: "failed"; readonly agent: string; readonly step: string }
  | {
      readonly event: "answered"
      readonly agent: string
      readonly step: string
      /** Whether the answer comes from an earlier run, so that no call was made. */
      readonly reused: boolean
      readonly inputTokens: number
      readonly outputTokens: number
      readonly seconds: number
      /** When an earlier run made the call, if that is known. */
      readonly when?: Results.Result["when"]
    }
  | {
      readonly event: "ended"
      readonly agent: string
      readonly how: "done" | "failed" | "stopped"
      /** Why it failed, if it did. */
      readonly failure: string | undefined
    }
  /** Calls wait until a cap or a window begins anew. */
  | {
      readonly event: "paused"
      /** The time of the reset, such as `2026-11-30T00:00:00.000Z`. */
      readonly until: string
      /** How long that is from now. */
      readonly seconds: number
      readonly reason: string
    }

/** The options of a run. */
export interface Options<E> {
  readonly task: Steps.Task
  readonly chunks: ReadonlyArray<Split.Chunk>
  /** Results of earlier runs by key. Their calls are not made again. */
  readonly finished: ReadonlyMap<string, Results.Result>
  /** Stores a result, before the agent's next call starts and without interruption. */
  readonly record: (result: Results.Result) => Effect.Effect<void, E>
  readonly report: (event: RunEvent) => Effect.Effect<void>
  /** Notes that an attempt is sent, or, without a request, that it costs nothing. */
  readonly noteAttempt?: ((attempt: string, params: Params | undefined) => Effect.Effect<void>) | undefined
  readonly cap?: Agents.Cap | undefined
}

/** The outcome of a run. */
export interface RunReport {
  readonly parts: ReadonlyArray<Steps.AgentText>
  readonly missing: ReadonlyArray<{ readonly agent: string; readonly documents: string; readonly reason: string }>
  /** The text of the orchestrator, unless it failed or had nothing to merge. */
  readonly merged: string | undefined
  readonly calls: number
  readonly reused: number
  /** Answers that `max_tokens` cut off, including those of earlier runs. */
  readonly cut: number
  readonly inputTokens: number
  readonly outputTokens: number
  readonly seconds: number
  /** Whether the same command may get further: something is missing that does not always fail. */
  readonly retryHelps: boolean
  /** The fault of the address, the key or the model, if no call was answered. */
  readonly wrongStart: string | undefined
}

/** An answer has no text, which the next call would need. */
export class NoAnswer extends Schema.TaggedError<NoAnswer>("floodgate/cli/run/NoAnswer")("NoAnswer", {
  step: Schema.String,
  stop: Schema.NullOr(Schema.String)
}) {
  override get message(): string {
    return `the answer to "${this.step}" has no text (${this.stop ?? "no reason given"}): raise --max-tokens, or change the prompt`
  }
}

// -----------------------------------------------------------------------------
// Attempts
// -----------------------------------------------------------------------------

/** The observer of the attempts of the running call. */
const Attempts = Context.Reference<{
  readonly admitted: (charge: Limits.Usage) => Effect.Effect<void>
  readonly failed: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
}>("floodgate/cli/run/Attempts", {
  defaultValue: () => ({ admitted: () => Effect.void, failed: () => Effect.void })
})

/** A budget that reports each reservation to the running call. */
export const reporting = (budget: Budget.TokenBudget["Service"]): Budget.TokenBudget["Service"] => ({
  ...budget,
  reserve: (estimate, options) =>
    Effect.flatMap(Attempts, ({ admitted, failed }) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.tap(restore(budget.reserve(estimate, options)), ({ charge }) =>
          Effect.andThen(
            admitted(charge),
            Effect.addFinalizer((exit) => (Exit.isSuccess(exit) ? Effect.void : failed(exit)))
          )
        )
      )
    )
})

// -----------------------------------------------------------------------------
// Running
// -----------------------------------------------------------------------------

/** The name of an agent, padded so that names sort by number. */
export const nameOf = (index: number, count: number): string =>
  `agent-${(index + 1).toString().padStart(count.toString().length, "0")}`

/** The number of calls of a run with this many agents. */
export const callsOf = (agents: number): number => agents * Steps.steps.length + 1

/** The sums over the answered calls of a run. */
interface Totals {
  calls: number
  reused: number
  cut: number
  inputTokens: number
  outputTokens: number
}

/** Whether an attempt that failed costs nothing: the provider has answered with an error. */
const isFree = (exit: Exit.Exit<unknown, unknown>): boolean => {
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return Predicate.hasProperty(error, "status") && Number(error.status) >= 400
}

/** Answers the steps of a run, from an earlier run if possible, otherwise by the provider. */
const answering = <E>(client: LlmClient.LlmClient["Service"], options: Options<E>, totals: Totals) => {
  const { finished, noteAttempt, record, report } = options

  /** Asks the provider and stores the answer uninterruptibly, because Ctrl-C must not lose an answer that was paid for. */
  const ask = (agent: string, step: string, key: string, params: Params, asked: number) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const note = (params: Params | undefined) => noteAttempt?.(attempt, params) ?? Effect.void
        let count = 0
        let attempt = ""
        const attempts = {
          admitted: (charge: Limits.Usage) =>
            Effect.suspend(() => {
              attempt = `${key}.${asked}.${++count}`
              return Effect.andThen(note(params), report({ event: "admitted", agent, step, charge }))
            }),
          failed: (exit: Exit.Exit<unknown, unknown>) =>
            Effect.andThen(isFree(exit) ? note(undefined) : Effect.void, report({ event: "failed", agent, step }))
        }
        const message = yield* client
          .create(params, { kind: step })
          .pipe(Effect.provideService(Attempts, attempts), restore)
        const text = LlmClient.text(message)
        if (text.trim() === "") return yield* new NoAnswer({ step, stop: message.stop_reason })
        const { model, stop_reason: stop } = message
        const usage = Results.tokensOf(message.usage)
        const when = { asked, answered: yield* Clock.currentTimeMillis }
        const answered = noteAttempt === undefined ? {} : { attempt }
        const result: Results.Result = { agent, step, key, model, usage, stop, text, when, ...answered }
        yield* record(result)
        totals.calls++
        totals.inputTokens += result.usage.inputTokens
        totals.outputTokens += result.usage.outputTokens
        return result
      })
    )

  return Effect.fnUntraced(function* (agent: string, step: string, params: Params) {
    const key = Results.keyOf(agent, step, params)
    const known = finished.get(key)
    const at = yield* Clock.currentTimeMillis
    if (known === undefined) yield* report({ event: "asked", agent, step })
    else totals.reused++
    const { stop, text, usage } = known ?? (yield* ask(agent, step, key, params, at))
    if (stop === "max_tokens") totals.cut++
    const seconds = ((yield* Clock.currentTimeMillis) - at) / 1_000
    const earlier = known?.when === undefined ? {} : { when: known.when }
    yield* report({ event: "answered", agent, step, reused: known !== undefined, ...usage, seconds, ...earlier })
    return text
  })
}

const errorOf = <E>(cause: Cause.Cause<E>): E | undefined => Option.getOrUndefined(Cause.findErrorOption(cause))

const reasonOf = (cause: Cause.Cause<{ readonly message: string }>): string => {
  const error = errorOf(cause)
  if (error !== undefined) return printable(error.message)
  return Cause.hasInterruptsOnly(cause) ? "stopped" : `a bug: ${String(Cause.squash(cause))}`
}

/** The fault of the address, the key or the model, without the history of the call; undefined for other failures. */
const wrongStartOf = (error: unknown): string | undefined => {
  if (!(error instanceof LlmError)) return undefined
  const { reason } = error
  const isUnsent = reason._tag === "ConnectionFailed" && !reason.sent
  const isUnsendable = reason._tag === "InvalidRequest" && reason.code === "ERR_INVALID_URL"
  const isRefused = reason._tag === "AccessDenied" || reason.status === 404
  return isUnsent || isUnsendable || isRefused ? printable(reason.message) : undefined
}

const ended = (agent: string, exit: Exit.Exit<unknown, { readonly message: string }>, { calls }: Totals): RunEvent => {
  const event = "ended"
  if (Exit.isSuccess(exit)) return { event, agent, how: "done", failure: undefined }
  // The run says it once for all agents.
  const isStopped =
    Cause.hasInterruptsOnly(exit.cause) || (calls === 0 && wrongStartOf(errorOf(exit.cause)) !== undefined)
  if (isStopped) return { event, agent, how: "stopped", failure: undefined }
  return { event, agent, how: "failed", failure: reasonOf(exit.cause) }
}

/** Reasons for which the same call always fails again. */
const permanentReasons = new Set(["InvalidRequest", "NotFound", "TooLarge", "EstimateTooLarge", "RejectedAsTooLarge"])

/** Whether the same call would fail again in another run. After a cap that admitted calls, another run gets further. */
const isPermanent = (error: unknown, { calls }: Totals): boolean => {
  if (error instanceof NoAnswer) return true
  const reason = Predicate.hasProperty(error, "reason") ? error.reason : undefined
  if (!Predicate.hasProperty(reason, "_tag")) return false
  if (permanentReasons.has(String(reason._tag))) return true
  // A cap may begin anew.
  const cause = Predicate.hasProperty(reason, "cause") ? reason.cause : undefined
  const fitsLater = Predicate.hasProperty(cause, "isRetryable") && cause.isRetryable === true
  return reason._tag === "Denied" && calls === 0 && !fitsLater
}

/** The answers that a run has before it starts. */
export interface KnownAnswers {
  /** The number of answers of each agent. */
  readonly ofAgents: ReadonlyArray<number>
  readonly isMerged: boolean
}

/** The number of answers. */
export const countOf = ({ isMerged, ofAgents }: KnownAnswers): number =>
  ofAgents.reduce((sum, count) => sum + count, isMerged ? 1 : 0)

/** Looks up the answers of a run. */
export const knownOf = ({
  chunks,
  finished,
  task
}: Pick<Options<never>, "chunks" | "finished" | "task">): KnownAnswers => {
  if (finished.size === 0) return { ofAgents: chunks.map(() => 0), isMerged: false }
  const parts: Array<Steps.AgentText> = []
  const ofAgents = chunks.map((chunk, index) => {
    const agent = nameOf(index, chunks.length)
    const at = { part: index + 1, parts: chunks.length, chunk }
    let answers: Steps.Answers = {}
    for (const [count, step] of Steps.steps.entries()) {
      const known = finished.get(Results.keyOf(agent, step, Steps.params(task, step, at, answers)))
      if (known === undefined) return count
      answers = { ...answers, [step]: known.text }
    }
    parts.push({ agent, text: answers.finish! })
    return Steps.steps.length
  })
  const merge = Results.keyOf(Steps.orchestrator, "merge", Steps.mergeParams(task, parts))
  return { ofAgents, isMerged: parts.length === chunks.length && finished.has(merge) }
}

/** The job of all agents and of the orchestrator. */
const job = "floodgate run"

/** Runs the pipeline. An agent that fails does not stop the others, and the report says what failed. */
export const run = Effect.fnUntraced(function* <E extends { readonly message: string }>(
  options: Options<E>
): Effect.fn.Return<RunReport, never, LlmClient.LlmClient | Agents.Meter> {
  const { cap, chunks, report, task } = options
  const startedAt = yield* Clock.currentTimeMillis
  const totals: Totals = { calls: 0, reused: 0, cut: 0, inputTokens: 0, outputTokens: 0 }
  const answer = answering(yield* LlmClient.LlmClient, options, totals)

  const work = Effect.fnUntraced(function* (agent: string, chunk: Split.Chunk, index: number) {
    const at = { part: index + 1, parts: chunks.length, chunk }
    let answers: Steps.Answers = {}
    for (const step of Steps.steps) {
      const text = yield* answer(agent, step, Steps.params(task, step, at, answers))
      answers = { ...answers, [step]: text }
    }
    return answers.finish!
  })
  const outcomes = yield* Agents.run(
    chunks.map((chunk, index) => {
      const key = nameOf(index, chunks.length)
      return { key, effect: Effect.onExit(work(key, chunk, index), (exit) => report(ended(key, exit, totals))) }
    }),
    { cap, job }
  )

  const parts: Array<Steps.AgentText> = []
  const missing: Array<RunReport["missing"][number]> = []
  const errors: Array<unknown> = []
  outcomes.forEach(({ exit, key: agent }, index) => {
    if (Exit.isSuccess(exit)) parts.push({ agent, text: exit.value })
    else {
      missing.push({ agent, documents: Split.describe(chunks[index]!), reason: reasonOf(exit.cause) })
      errors.push(errorOf(exit.cause))
    }
  })

  const agent = Steps.orchestrator
  const merging = answer(agent, "merge", Steps.mergeParams(task, parts)).pipe(
    Effect.provideService(Budget.Agent, agent),
    Effect.provideService(Budget.Job, job),
    Effect.onExit((exit) => report(ended(agent, exit, totals))),
    Effect.catch((error) => {
      missing.push({ agent, documents: "all parts", reason: printable(error.message) })
      errors.push(error)
      return Effect.undefined
    })
  )
  const merged = parts.length === 0 ? undefined : yield* merging
  const seconds = ((yield* Clock.currentTimeMillis) - startedAt) / 1_000
  const retryHelps = errors.some((error) => !isPermanent(error, totals))
  const wrongStart = totals.calls === 0 && errors.every(wrongStartOf) ? wrongStartOf(errors[0]) : undefined
  return { parts, missing, merged, ...totals, seconds, retryHelps, wrongStart }
})
