/** `floodgate try --real`: 40 agents against the real provider, under a cap, with a record of what happened and no text. */
import Anthropic from "@anthropic-ai/sdk"
import * as Clock from "effect/Clock"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { versions } from "node:process"
import type * as Events from "floodgate/Events"
import * as Words from "floodgate/internal/words"
import * as Prices from "floodgate/Prices"
import * as Floodgate from "floodgate/promise"
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Output from "@floodgate/gateway/internal/output"
import * as Print from "@floodgate/gateway/internal/print"
import * as Redis from "@floodgate/gateway/internal/redis"
import * as Doctor from "../doctor.ts"
import * as Answering from "../run/answering.ts"
import * as Confirm from "../run/confirm.ts"
import { version } from "../version.ts"
import * as Duel from "./duel.ts"

/** The settings of a recorded run. */
export interface RealRun {
  readonly yes: boolean
  readonly maxCents: number
  readonly model: string
  readonly out: string
}

const agents = 40
const callsEach = 5
const calls = agents * callsEach
/** Some 2,000 tokens a call, so that the calls of one moment are more than a new account may send in it. */
const prompt = "Answer with one word. Which colour has the sky? ".padEnd(8_000, "It is day, and there are no clouds. ")
const maxTokens = 16

/** A call as the record has it. Times are seconds from the start of the run. */
interface RealCall {
  readonly agent: string
  readonly from: number
  readonly to: number
  /** `"answered"`, or the status or the name of the error. */
  readonly outcome: string
  readonly inputTokens?: number | undefined
  readonly outputTokens?: number | undefined
}

/** Whether every call fails like the first, such as with a wrong key. */
const isHopeless = (outcome: string, made: ReadonlyArray<RealCall>): boolean =>
  /^4(?!29)\d\d$/.test(outcome) && made.every((call) => call.outcome !== "answered")

/** An event without names that tell the account, and with seconds from the start of the run. */
const recorded = (event: Events.Event, startedAt: number) => {
  const { at, pool: _, ...more } = event
  const after = (millis: number): number => (millis - startedAt) / 1_000
  const until = "until" in more && more.until !== undefined ? { until: after(more.until) } : {}
  return { ...more, at: after(at), ...until }
}

/** Runs the agents, and returns what is known of them when they end or are stopped. */
const play = Effect.fnUntraced(function* (
  { apiKey, baseUrl }: NonNullable<Effect.Success<typeof Answering.credentials>>,
  { maxCents, model }: RealRun
) {
  const events: Array<Events.Event> = []
  const made: Array<RealCall> = []
  const floodgate = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Floodgate.create({ cap: { dollars: maxCents / 100 }, onEvent: (event) => void events.push(event) })
    ),
    (floodgate) => Effect.promise(() => floodgate.dispose())
  )
  const client = floodgate.anthropic(new Anthropic({ apiKey: Redacted.value(apiKey), baseURL: baseUrl }))
  const startedAt = yield* Clock.currentTimeMillis
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => (now - startedAt) / 1_000)
  const ask = Effect.fnUntraced(function* (agent: string) {
    const from = yield* seconds
    const answer = yield* Effect.result(
      Effect.tryPromise({
        try: (signal) =>
          client.messages.create(
            {
              model,
              max_tokens: maxTokens,
              metadata: { user_id: agent },
              messages: [{ role: "user", content: prompt }]
            },
            { signal }
          ),
        catch: (error) => (error instanceof Floodgate.RefusedError ? `refused: ${error.reason}` : Duel.wordOf(error))
      })
    )
    const about = { agent, from, to: yield* seconds }
    if (answer._tag === "Failure") {
      made.push({ ...about, outcome: answer.failure })
      return yield* Effect.fail(answer.failure)
    }
    const { input_tokens: inputTokens, output_tokens: outputTokens } = answer.success.usage
    made.push({ ...about, outcome: "answered", inputTokens, outputTokens })
  })
  const run = Effect.forEach(
    Array.from({ length: agents }, (_, index) => `agent-${index + 1}`),
    (agent) =>
      Effect.repeat(ask(agent), { times: callsEach - 1 }).pipe(
        Effect.catchIf(
          (outcome) => !isHopeless(outcome, made),
          () => Effect.void
        )
      ),
    { concurrency: "unbounded", discard: true }
  )
  const record = Effect.gen(function* () {
    const [status, spent] = yield* Effect.promise(() => Promise.all([floodgate.status(), floodgate.spent()]))
    return {
      floodgate: version,
      node: versions.node,
      startedAt: new Date(startedAt).toISOString(),
      provider: Redis.shown(baseUrl),
      model,
      maxCents,
      planned: calls,
      answered: made.filter(({ outcome }) => outcome === "answered").length,
      rejections: events.filter(({ type }) => type === "rejection").length,
      seconds: yield* seconds,
      cents: 100 * spent.spent,
      learned: Object.values(status.pools).map(({ known }) => known),
      calls: made,
      events: events.filter(({ type }) => type !== "cap").map((event) => recorded(event, startedAt))
    }
  })
  return { run, record }
})

/** Asks, checks the key and the address, runs the agents, and writes the record, also of a run that is stopped. */
export const real = Effect.fnUntraced(function* (options: RealRun) {
  const { maxCents, model, out, yes } = options
  const credentials = yield* Answering.credentials
  if (credentials === undefined) {
    return yield* Exit.failure("usage", "--real calls the provider: set ANTHROPIC_API_KEY, or leave out --real")
  }
  if (Prices.find(model) === undefined) return yield* invalidFlag("try")("model", "a model with a known price", model)
  const provider = Redis.shown(credentials.baseUrl)
  const what = `${Words.counted(calls, "call")} of ${agents} agents to ${provider}, model ${model}, for at most ${Words.dollars(maxCents / 100)}`
  if (!yes) {
    const { canPrompt } = yield* TerminalCapabilities.TerminalCapabilities
    if (!canPrompt) {
      return yield* Exit.failure("usage", `This costs money and nobody can be asked: add --yes to send ${what}`)
    }
    yield* Confirm.ask(`Send ${what}? [y/N] `, "nothing was sent. --yes sends it without a question")
  }
  yield* Output.claim(out, "--out")
  yield* Doctor.mustAnswer(credentials)
  yield* Print.err(`${what}. Ctrl-C stops, and keeps the record.`)
  const { record, run } = yield* play(credentials, options)
  const ended = Effect.gen(function* () {
    const known = yield* record
    yield* Output.write(out, `${JSON.stringify(known, null, 2)}\n`, "--out")
    const figures = `${known.answered} of ${calls} answered, ${known.rejections} x 429, ${Words.seconds(known.seconds)}`
    yield* Print.out(`${figures}, ${Words.dollars(known.cents / 100)} of at most ${Words.dollars(maxCents / 100)}.`)
    yield* Print.out(`The record is ${out}. It has no text of prompts or answers, and no key.`)
    return known
  })
  yield* run.pipe(
    Effect.onInterrupt(() => Effect.ignore(ended)),
    Effect.catch((outcome) =>
      Exit.failure(
        "failed",
        `${provider} answers ${outcome} before any answer, so the run has ended: check ANTHROPIC_API_KEY and --model`
      )
    )
  )
  const { answered, calls: made } = yield* ended
  if (answered < calls) {
    const [first] = made.flatMap(({ outcome }) => (outcome === "answered" ? [] : [outcome]))
    return yield* Exit.failure("failed", `${calls - answered} calls were not answered (${first ?? "stopped"})`)
  }
}, Effect.scoped)
