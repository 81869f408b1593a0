/** Plays a workload through `LlmClient`, against a provider that shares no code with Floodgate. */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import * as Spending from "floodgate/Spending"
import { LlmProvider } from "floodgate/LlmProvider"
import { Simulation } from "floodgate/testing"
import type { CappedRun } from "./caps.ts"
import { Bucket, Cache, type Result, secondsOf, type Turn, type Workload } from "./trace.ts"

export interface Told {
  /** Whether the client knows the limit, and the tokens of whole prompts. */
  readonly limits: boolean
  readonly counts: boolean
  /** Whether the provider's responses have headers. */
  readonly headers: boolean
  /** Whether answers say what was written to the cache, as Anthropic's do. */
  readonly writes?: boolean
  /** The part by which the bytes per token of a message may differ from others. */
  readonly noise?: number
  /** How many sessions belong to a job. @default none names one: each agent is a job by itself */
  readonly sessionsOfJob?: number | undefined
  /** How many processes take turns with each conversation. */
  readonly processes?: number
  /** The cap in dollars from which all calls pay, as one process keeps it. */
  readonly cap?: CappedRun
  /** Called with each call that was answered. */
  readonly predicted?: (call: PredictedCall) => void
}

/** What a call was expected to take from the limit, and what it took. */
export interface PredictedCall {
  /** The number of the call in its conversation, from 1 on. */
  readonly turn: number
  readonly predicted: number
  readonly used: number
  /** Whether the provider had its prefix in the cache. */
  readonly isLive: boolean
}

/** Records what each agent has reserved last. */
const recording = (reserved: Map<string, number>) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.TokenBudget, (inner) =>
      Budget.TokenBudget.of({
        ...inner,
        reserve: (estimate, options) =>
          Effect.tap(inner.reserve(estimate, options), ({ agent, estimate }) =>
            Effect.sync(() => reserved.set(agent, estimate.inputTokens ?? 0))
          )
      })
    )
  )

const words = "the agent reads a file, then it changes one line and runs the tests again; "
const charactersPerToken = 3.6

/** A number from -1 to 1 that depends on a text only. */
const deviation = (salt: string): number => {
  let hash = 7
  for (let i = 0; i < salt.length; i++) hash = Math.imul(hash ^ salt.charCodeAt(i), 0x9e3779b1)
  return (hash ^ (hash >>> 15)) / 2 ** 31
}

const textOf = (tokens: number, salt: string, noise = 0): string => {
  const length = Math.max(1, Math.round(tokens * charactersPerToken * (1 + noise * deviation(salt))))
  return `${salt} ${words.repeat(Math.ceil(length / words.length))}`.slice(0, length)
}

const now = Effect.map(Clock.currentTimeMillis, (millis) => millis / 1_000)

type Said = { readonly tokens: number; readonly text: string }

/** The provider, and what it did. A call names itself in its metadata. */
const providerOf = (workload: Workload, { cap, headers, writes = false }: Told) => {
  const { countsAll, perMinute } = workload
  const bucket = new Bucket(workload)
  const cache = new Cache(workload)
  const turns = new Map<string, Turn>()
  const did = { rejected: 0 }
  const signal = () => {
    const shown = { limit: perMinute, remaining: Math.max(0, Math.floor(bucket.level)) }
    return headers ? { dimensions: countsAll ? { tokens: shown } : { inputTokens: shown } } : undefined
  }
  const reject = (wait: number) => {
    did.rejected++
    const retryAfter = headers ? Duration.seconds(Math.ceil(wait)) : undefined
    const reason = new LlmError.RateLimited({ status: 429, code: "rate_limit_error", retryAfter, signal: signal() })
    return Effect.delay(Effect.fail(new LlmError.LlmError({ reason })), "200 millis")
  }
  const answer = (turn: Turn, read: number, model: string) => ({
    value: {
      id: "m",
      type: "message" as const,
      role: "assistant" as const,
      model,
      content: [{ type: "text" as const, text: "ok" }],
      stop_reason: "end_turn" as const,
      stop_sequence: null,
      usage: {
        input_tokens: writes ? 0 : turn.prompt - read,
        cache_creation_input_tokens: writes ? turn.prompt - read : 0,
        cache_read_input_tokens: read,
        output_tokens: turn.output
      }
    },
    signal: signal(),
    requestId: "r"
  })
  const create = (params: {
    readonly model: string
    readonly metadata?: { readonly user_id?: string | null } | null
  }) =>
    Effect.flatMap(now, (at) => {
      const turn = turns.get(params.metadata!.user_id!)!
      bucket.advance(at)
      const need = cache.needOf(turn, at)
      const wait = bucket.wait(need)
      if (wait > 0) return reject(wait)
      const read = cache.readBy(turn, at)
      bucket.level -= need
      cache.use(turn, at)
      return Effect.flatMap(Effect.sleep(1_000 * secondsOf(turn, workload)), () =>
        Effect.map(now, (ended) => {
          bucket.advance(ended)
          cap?.answered(turn, read)
          return answer(turn, read, params.model)
        })
      )
    })
  const readNow = (turn: Turn) => Effect.map(now, (at) => cache.readBy(turn, at))
  return { create, did, readNow, turns }
}

const layerOf = (
  workload: Workload,
  told: Told,
  create: ReturnType<typeof providerOf>["create"],
  reserved: Map<string, number>
) => {
  const { burst, countsAll, perMinute } = workload
  const limit = { perMinute, burst, window: "bucket" } as const
  const limits = told.limits ? { requests: { perMinute: 1e6 }, [countsAll ? "tokens" : "inputTokens"]: limit } : {}
  const budget = Budget.layer({ limits })
  const provider = { name: countsAll ? "openai" : "anthropic", create } as unknown as LlmProvider["Service"]
  const accounting = countsAll ? Accounting.openai : Accounting.anthropic
  return LlmClient.layerProvider({ accounting, countPrompts: false }).pipe(
    Layer.provideMerge(told.predicted === undefined ? budget : Layer.provide(recording(reserved), budget)),
    Layer.provide(Layer.succeed(LlmProvider, provider))
  )
}

/** The conversation of an agent after another call: what the prompt shares with the one before, and what it adds. */
const extend = (talk: Array<Said>, { prompt, session, shared }: Turn, scale: number, noise?: number): void => {
  let kept = 0
  let length = 0
  // What is shared is recorded in blocks of 64 tokens.
  while (length < talk.length && kept + talk[length]!.tokens <= shared + 64 / scale) kept += talk[length++]!.tokens
  talk.length = length
  talk.push({ tokens: prompt - kept, text: textOf(prompt - kept, `${session}.${length}`, noise) })
}

const messageOf = ({ text }: Said, index: number, { length }: ReadonlyArray<Said>) => ({
  role: index % 2 === 0 ? ("user" as const) : ("assistant" as const),
  content:
    index === length - 1 ? [{ type: "text" as const, text, cache_control: { type: "ephemeral" as const } }] : text
})

export const play = async (workload: Workload, told: Told, show: (line: string) => void): Promise<Result> => {
  const { create, did, readNow, turns } = providerOf(workload, told)
  const { cap } = told
  const purses = cap && [Spending.make("sessions", { dollars: cap.dollars })]
  const reserved = new Map<string, number>()
  const numbers = new Map<string, number>()
  let id = 0
  let lost = 0
  const ends: Array<number> = []
  const note = (agent: string, { usage }: Message): void => {
    const turn = (numbers.get(agent) ?? 0) + 1
    numbers.set(agent, turn)
    const used = usage.input_tokens + (usage.cache_creation_input_tokens ?? 0)
    const isLive = (usage.cache_read_input_tokens ?? 0) > 0
    told.predicted?.({ turn, predicted: reserved.get(agent) ?? 0, used, isLive })
  }
  const ask = Effect.fnUntraced(function* (talk: Array<Said>, turn: Turn) {
    if (turn.pause > 0) yield* Effect.sleep(1_000 * turn.pause)
    extend(talk, turn, workload.scale, told.noise)
    const key = String(id++)
    turns.set(key, turn)
    const params = {
      model: "claude-sonnet-5",
      max_tokens: workload.maxTokens,
      metadata: { user_id: key },
      messages: talk.map(messageOf)
    }
    const agent = `${turn.session}/${turn.path}`
    const inputTokens = told.counts ? turn.prompt : undefined
    const { sessionsOfJob } = told
    const job = sessionsOfJob === undefined ? undefined : String(Math.floor(turn.session / sessionsOfJob))
    const client = clients[(numbers.get(agent) ?? 0) % clients.length]!
    const exit = yield* Effect.exit(client.create(params, { agent, job, inputTokens, purses }))
    turns.delete(key)
    if (Exit.isSuccess(exit)) return note(agent, exit.value)
    lost++
    cap?.refused(turn, yield* readNow(turn))
    show(`${Math.round(yield* now)} s, ${agent}, a prompt of ${turn.prompt}, ${turn.shared} shared: ${exit.cause}`)
  })
  const session = Effect.fnUntraced(function* (calls: ReadonlyArray<Turn>, index: number) {
    const talks = new Map<string, Array<Said>>()
    for (const turn of calls) {
      const talk = talks.get(turn.path) ?? []
      talks.set(turn.path, talk)
      yield* ask(talk, turn)
    }
    ends[index] = yield* now
  })
  const clients: Array<LlmClient.LlmClient["Service"]> = []
  const opened = Effect.gen(function* () {
    for (let n = 0; n < (told.processes ?? 1); n++) {
      const context = yield* Layer.build(Layer.fresh(layerOf(workload, told, create, reserved)))
      clients.push(Context.get(context, LlmClient.LlmClient))
    }
    yield* Effect.forEach(workload.sessions, session, { concurrency: "unbounded", discard: true })
  })
  const { duration } = await Effect.runPromise(Simulation.run(Effect.scoped(opened), { seed: 1 }))
  return {
    seconds: Duration.toSeconds(duration),
    mean: ends.reduce((one, other) => one + other, 0) / ends.length,
    ends,
    rejected: did.rejected,
    lost
  }
}
