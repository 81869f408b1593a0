/** Plays a workload through `LlmClient`, against a provider that shares no code with Floodgate. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import { Simulation } from "floodgate/testing"
import { Bucket, Cache, type Result, secondsOf, type Turn, type Workload } from "./trace.ts"

export interface Told {
  /** Whether the client knows the limit, and the tokens of whole prompts. */
  readonly limits: boolean
  readonly counts: boolean
  /** Whether the provider's responses have headers. */
  readonly headers: boolean
}

const words = "the agent reads a file, then it changes one line and runs the tests again; "
const charactersPerToken = 3.6

const textOf = (tokens: number, salt: string): string => {
  const length = Math.max(1, Math.round(tokens * charactersPerToken))
  return `${salt} ${words.repeat(Math.ceil(length / words.length))}`.slice(0, length)
}

const now = Effect.map(Clock.currentTimeMillis, (millis) => millis / 1_000)

type Message = { readonly tokens: number; readonly text: string }

/** The provider, and what it did. A call names itself in its metadata. */
const providerOf = (workload: Workload, { headers }: Told) => {
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
        input_tokens: turn.prompt - read,
        cache_creation_input_tokens: 0,
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
          return answer(turn, read, params.model)
        })
      )
    })
  return { create, did, turns }
}

const layerOf = (workload: Workload, told: Told, create: ReturnType<typeof providerOf>["create"]) => {
  const { burst, countsAll, perMinute } = workload
  const limit = { perMinute, burst, window: "bucket" } as const
  const limits = told.limits ? { requests: { perMinute: 1e6 }, [countsAll ? "tokens" : "inputTokens"]: limit } : {}
  const provider = { name: countsAll ? "openai" : "anthropic", create } as unknown as LlmProvider["Service"]
  const accounting = countsAll ? Accounting.openai : Accounting.anthropic
  return LlmClient.layerProvider({ accounting, countPrompts: false }).pipe(
    Layer.provideMerge(Budget.layer({ limits })),
    Layer.provide(Layer.succeed(LlmProvider, provider))
  )
}

/** The conversation of an agent after another call: what the prompt shares with the one before, and what it adds. */
const extend = (talk: Array<Message>, { prompt, session, shared }: Turn, scale: number): void => {
  let kept = 0
  let length = 0
  // What is shared is recorded in blocks of 64 tokens.
  while (length < talk.length && kept + talk[length]!.tokens <= shared + 64 / scale) kept += talk[length++]!.tokens
  talk.length = length
  talk.push({ tokens: prompt - kept, text: textOf(prompt - kept, `${session}.${length}`) })
}

const messageOf = ({ text }: Message, index: number, { length }: ReadonlyArray<Message>) => ({
  role: index % 2 === 0 ? ("user" as const) : ("assistant" as const),
  content:
    index === length - 1 ? [{ type: "text" as const, text, cache_control: { type: "ephemeral" as const } }] : text
})

export const play = async (workload: Workload, told: Told, show: (line: string) => void): Promise<Result> => {
  const { create, did, turns } = providerOf(workload, told)
  let id = 0
  let lost = 0
  let sum = 0
  const ask = Effect.fnUntraced(function* (talk: Array<Message>, turn: Turn) {
    if (turn.pause > 0) yield* Effect.sleep(1_000 * turn.pause)
    extend(talk, turn, workload.scale)
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
    const exit = yield* Effect.exit(LlmClient.create(params, { agent, inputTokens }))
    turns.delete(key)
    if (Exit.isSuccess(exit)) return
    lost++
    show(`${Math.round(yield* now)} s, ${agent}, a prompt of ${turn.prompt}, ${turn.shared} shared: ${exit.cause}`)
  })
  const session = Effect.fnUntraced(function* (calls: ReadonlyArray<Turn>) {
    const talks = new Map<string, Array<Message>>()
    for (const turn of calls) {
      const talk = talks.get(turn.path) ?? []
      talks.set(turn.path, talk)
      yield* ask(talk, turn)
    }
    sum += yield* now
  })
  const all = Effect.forEach(workload.sessions, session, { concurrency: "unbounded", discard: true })
  const { duration } = await Effect.runPromise(
    Simulation.run(Effect.provide(all, layerOf(workload, told, create)), { seed: 1 })
  )
  return {
    seconds: Duration.toSeconds(duration),
    mean: sum / workload.sessions.length,
    rejected: did.rejected,
    lost
  }
}
