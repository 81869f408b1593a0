/** `floodgate advise`: how many more agents help now. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { AdviceFigures } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type { PlainAdvice } from "floodgate/promise"
import * as Asking from "./asking.ts"
import { invalidFlag, kebab } from "@floodgate/gateway/internal/errors"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import * as Print from "@floodgate/gateway/internal/print"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flags.optional(description))

const flags = {
  agents: Flags.count("agents").pipe(Flags.optional("How many agents you want to start (default: as many as help)")),
  running: Flags.number("running", "a whole number from 0", (value) => value >= 0 && Number.isSafeInteger(value)).pipe(
    Flags.optional("How many of your agents already run (default: as many as have calls)")
  ),
  like: text(
    "like",
    "<name>",
    'Earlier agents that did the same work, such as "reviewer-*" (default: all of the pool)'
  ),
  calls: Flags.count("calls").pipe(Flags.optional("Calls that each agent makes (default: 5)")),
  inputTokens: Flags.atLeastZero("input-tokens", 1e9).pipe(
    Flags.optional("Input tokens of each call (default: 10000)")
  ),
  outputTokens: Flags.atLeastZero("output-tokens", Flags.maxOutputTokens).pipe(
    Flags.optional("Output tokens of each call (default: 500)")
  ),
  firstInputTokens: Flags.atLeastZero("first-input-tokens", 1e9).pipe(
    Flags.optional("Input tokens of an agent's first call (default: as the others)")
  ),
  firstOutputTokens: Flags.atLeastZero("first-output-tokens", Flags.maxOutputTokens).pipe(
    Flags.optional("Output tokens of an agent's first call (default: as the others)")
  ),
  growthTokens: Flags.atLeastZero("growth-tokens", 1e9).pipe(
    Flags.optional("By how many tokens the prompt of each call is longer than the one before (default: 0)")
  ),
  cachedShare: Flags.number("cached-share", "a number from 0 to 1", (value) => value >= 0 && value <= 1).pipe(
    Flags.optional(
      "The part of the prompt before that is read from the cache and does not count towards limits: about 1 at Anthropic (default: 0)"
    )
  ),
  secondsPerCall: Flags.seconds("seconds-per-call", 86_400).pipe(
    Flags.optional("How long the provider takes for a call (default: as measured, or estimated from its tokens)")
  ),
  pause: Flags.seconds("pause", 86_400).pipe(
    Flags.optional("How long an agent waits for its tools between two calls (default: as agents of the pool did, or 0)")
  ),
  askingTokens: Flags.atLeastZero("asking-tokens", 1e9).pipe(
    Flags.optional("Input tokens of the call with which a model asks again (default: as your own calls at the gateway)")
  ),
  model: text("model", "<name>", "The model that the agents call (default: that of the pool in use)"),
  pool: text("pool", "<name>", "The pool whose limits apply, as the status names it (default: that of the model)"),
  places: text(
    "places",
    "<names>",
    "The places where the agents may call the model, separated by commas (default: all of the gateway's)"
  ),
  asker: text(
    "asker",
    "<name>",
    "Your name: capacity for agents that you are advised to start is held for you until the advice expires"
  ),
  gateway: Asking.gatewayFlag,
  concurrency: LimitFlags.concurrency,
  ...LimitFlags.flags,
  json: Flags.toggle("json", "Print one JSON object")
}

type AdviseFlags = Command.Command.Config.Infer<typeof flags>

/** The question of the flags. There is no flag for the account. */
const figuresOf = (given: AdviseFlags): AdviceFigures.AdviceFigures =>
  Object.fromEntries(
    [...AdviceFigures.texts, ...AdviceFigures.numbers].flatMap((name) => {
      const value: Option.Option<string | number> = name === "account" ? Option.none() : given[name]
      return Option.isSome(value) ? [[name, value.value]] : []
    })
  )

/** Asks the gateway, unless limits are stated. */
const sourceOf = Effect.fnUntraced(function* (given: AdviseFlags) {
  const limits = yield* LimitFlags.checked("advise", given)
  const concurrency = Option.getOrUndefined(given.concurrency)
  if (limits === undefined && concurrency === undefined) return Asking.gateway(yield* Asking.addressOf(given.gateway))
  if (Option.isSome(given.gateway)) {
    return yield* invalidFlag("advise")("gateway", "nothing: the stated limits answer", given.gateway.value)
  }
  return yield* Asking.stated(limits, concurrency)
})

const table = ({ ends }: PlainAdvice): string =>
  aligned([
    ["agents that start now", "all of these end in"],
    ...ends.map(({ agents, endSeconds }) => [String(agents), Words.seconds(endSeconds)])
  ]).join("\n")

const lines = (advice: PlainAdvice, source: string): string =>
  [oneLine(advice.text), ...(advice.ends.length === 0 ? [] : ["", table(advice)]), "", `From ${source}.`].join("\n")

/** Names the flag in an error about a figure. */
const named = (error: Exit.CommandError): Exit.CommandError => {
  const message = error.message.replace(/^advice: (\w+): /, (_, name: string) => `--${kebab(name)}: `)
  return new Exit.CommandError({ message, exitCode: error.exitCode })
}

/** The command. */
export const adviseCommand = Command.make(
  "advise",
  flags,
  Effect.fnUntraced(function* (given) {
    const source = yield* sourceOf(given)
    const answer = yield* Effect.mapError(source.ask("advice", figuresOf(given)), named)
    const advice = answer as PlainAdvice
    return yield* given.json ? Print.json({ ...advice, source: source.name }, 2) : Print.out(lines(advice, source.name))
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Says how many more agents help now, when they end, and which limit binds, before you start them. It asks a running gateway, which knows its limits, its queue and what earlier agents did; with limits as flags, it answers as if nobody else used them. The token of the gateway is read from FLOODGATE_GATEWAY_TOKEN. Advice reserves nothing, and expires."
  ),
  Command.withExamples([
    {
      command: "floodgate advise --agents 104 --like 'reviewer-*'",
      description: "With the same work as earlier reviewers"
    },
    {
      command: "floodgate advise --agents 40 --calls 5 --input-tokens 14000 --tokens-per-second 60000",
      description: "Without a gateway, from stated limits"
    }
  ])
)
