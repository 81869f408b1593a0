/** `floodgate mcp`: tools with which a model asks before it starts agents, over standard input and output. */
import * as McpProtocol from "effect/ai/McpProtocol"
import * as McpServer from "effect/ai/McpServer"
import * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as EffectExit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import { type AdviceFigures, Json } from "floodgate/internal"
import * as Asking from "./asking.ts"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import { version } from "./version.ts"

const flags = {
  gateway: Asking.gatewayFlag,
  concurrency: LimitFlags.concurrency,
  ...LimitFlags.flags
}

// -----------------------------------------------------------------------------
// The tools
// -----------------------------------------------------------------------------

/** Models send `null` for what they leave out. */
const number = (description: string) => Schema.optional(Schema.NullOr(Schema.Finite)).annotate({ description })
const text = (description: string) => Schema.optional(Schema.NullOr(Schema.String)).annotate({ description })

/** A model's question about its agents. Everything is optional. */
const Question = Schema.Struct({
  agents: number("How many agents there are to start in all. Leave it out to learn how many would help."),
  running: number("How many agents of yours run already."),
  like: text(
    'The name of earlier agents that did the same, such as "reviewer-*". Do not combine it with calls and tokens.'
  ),
  calls: number("The model calls that each agent makes."),
  inputTokens: number("The input tokens of each of its calls."),
  outputTokens: number("The output tokens of each of its calls."),
  firstInputTokens: number("The input tokens of its first call, if that is larger."),
  firstOutputTokens: number("The output tokens of its first call, if that differs."),
  growthTokens: number("By how many tokens the prompt of each of its calls is longer than the one before."),
  cachedShare: number(
    "The part of the prompt before that is read from the cache and does not count towards limits, from 0 to 1."
  ),
  secondsPerCall: number("How long one call takes, in seconds, if you know it."),
  pause: number("How long each of them waits for its tools between two calls, in seconds."),
  askingTokens: number("The tokens of your own next call, because asking again costs one."),
  model: text("The model that the agents use, if several are in use."),
  pool: text("The pool of limits that they use, as the status names it."),
  places: text("The places where they may call the model, separated by commas, if they must not use all.")
})

const Answered = Schema.Struct({
  text: Schema.String.annotate({ description: "The answer in a sentence or two." }),
  source: Schema.String.annotate({ description: "Where it comes from." }),
  details: Schema.Unknown.annotate({ description: "The figures." })
})

const tool = <const Name extends string>(name: Name, title: string, description: string) =>
  Tool.make(name, { description, parameters: Question, success: Answered, failure: Exit.CommandError })
    .annotate(Tool.Title, title)
    .annotate(Tool.Readonly, true)
    .annotate(Tool.Destructive, false)
    .annotate(Tool.Idempotent, true)
    .annotate(Tool.OpenWorld, false)

const Tools = Toolkit.make(
  tool(
    "advise",
    "How many agents to start",
    "Call this before you start sub-agents. It says how many more help now, when they will end, and which rate limit binds. Starting more does not end the work earlier, and may make calls fail. Ask again when the answer says so, and say how many are running."
  ),
  tool(
    "forecast",
    "How long agents would take",
    "Says when agents end if all of them start now, and which rate limit they wait for."
  ),
  Tool.make("status", {
    description: "The rate limits that are in use, what is left of each, and how many calls run and wait.",
    success: Answered,
    failure: Exit.CommandError
  })
    .annotate(Tool.Title, "What is left of the limits")
    .annotate(Tool.Readonly, true)
    .annotate(Tool.Destructive, false)
    .annotate(Tool.OpenWorld, false)
)

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

interface Sources {
  readonly gateway: Asking.AdviceSource
  /** The source of answers while no gateway responds. */
  readonly stated: Asking.AdviceSource
  /** The name of this server at the gateway, which holds the advised capacity for it. */
  readonly asker: string
}

type Answered = typeof Answered.Type

/** The details need not repeat the text. */
const answered = (source: string, text: string, answer: unknown, note = ""): Answered => {
  const { text: _, ...details } = Json.isRecord(answer) ? answer : {}
  return { source, text: `${note}${text}`, details }
}

/** Asks the gateway. If it does not answer, uses the stated limits and says so. */
const asked = (
  { asker, gateway, stated }: Sources,
  topic: Asking.Topic,
  figures: AdviceFigures.AdviceFigures,
  textOf: (answer: unknown) => string
): Effect.Effect<Answered, Exit.CommandError> => {
  const own = topic === "status" ? figures : { ...figures, asker }
  return gateway.ask(topic, own).pipe(
    Effect.map((answer) => answered(gateway.name, textOf(answer), answer)),
    Effect.catch((error) =>
      error.exitCode === Exit.codes.network
        ? Effect.map(stated.ask(topic, own), (answer) =>
            answered(
              stated.name,
              textOf(answer),
              answer,
              `No gateway answers, so this assumes ${stated.name}, as if nobody else used the provider. `
            )
          )
        : Effect.fail(error)
    )
  )
}

/** The status of pools, as far as a sentence needs it. */
const Pools = Schema.Struct({
  pools: Schema.Union([
    Schema.Array(Schema.Struct({ name: Schema.String, inFlight: Schema.Finite, queued: Schema.Finite })),
    Schema.Record(Schema.String, Schema.Struct({ inFlight: Schema.Finite, queued: Schema.Finite }))
  ])
})

const isPools = Schema.is(Pools)

const statusText = (answer: unknown): string => {
  if (!isPools(answer)) return "The status is below."
  const pools = Array.isArray(answer.pools)
    ? (answer.pools as ReadonlyArray<{ readonly name: string; readonly inFlight: number; readonly queued: number }>)
    : Object.entries(answer.pools).map(([name, pool]) => ({ name, ...pool }))
  if (pools.length === 0) return "No call was made yet."
  return pools.map(({ inFlight, name, queued }) => `Pool ${name}: ${inFlight} calls run and ${queued} wait.`).join(" ")
}

const hasText = Schema.is(Schema.Struct({ text: Schema.String }))
const sentence = (answer: unknown): string => (hasText(answer) ? answer.text : "")

const figuresOf = (question: typeof Question.Type): AdviceFigures.AdviceFigures =>
  Object.fromEntries(Object.entries(question).filter(([, value]) => value !== null))

const handlers = (sources: Sources) =>
  Tools.toLayer({
    advise: (question) => asked(sources, "advice", figuresOf(question), sentence),
    forecast: (question) => asked(sources, "forecast", figuresOf(question), sentence),
    status: () => asked(sources, "status", {}, statusText)
  })

const instructions =
  "Ask `advise` before you start sub-agents: it knows the rate limits that all of them share. Start no more than it says, and ask again when it says so."

// -----------------------------------------------------------------------------
// The command
// -----------------------------------------------------------------------------

const protocols = [
  McpProtocol.v2026_07_28,
  McpProtocol.v2025_11_25,
  McpProtocol.v2025_06_18,
  McpProtocol.v2025_03_26,
  McpProtocol.v2024_11_05
] as const

/** The command. */
export const mcpCommand = Command.make(
  "mcp",
  flags,
  Effect.fnUntraced(function* (given) {
    const limits = yield* LimitFlags.checked("mcp", given)
    const sources: Sources = {
      gateway: Asking.gateway(yield* Asking.addressOf(given.gateway)),
      stated: yield* Asking.stated(limits, Option.getOrUndefined(given.concurrency)),
      asker: `mcp-${Math.abs(yield* Random.nextInt)}`
    }
    const registrations = McpServer.toolkit(Tools).pipe(Layer.provide(handlers(sources)))
    const server = McpServer.layerStdio({ name: "floodgate", version, instructions, protocols, registrations })
    // At the end of standard input, the server interrupts the fiber that runs it.
    const exit = yield* Fiber.await(yield* Effect.forkChild(Layer.launch(server)))
    return yield* EffectExit.hasInterrupts(exit) ? Effect.void : exit
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "An MCP server on standard input and output. Its tools are advise (how many more agents help now), forecast (when agents end if all of them start now) and status (what is left of the limits). They ask a running gateway; while none answers, they say so and use the limits that are given as flags. The token of the gateway is read from FLOODGATE_GATEWAY_TOKEN."
  ),
  Command.withExamples([
    {
      command: "claude mcp add floodgate -- floodgate mcp",
      description: "In Claude Code, with a gateway on this machine"
    },
    { command: "floodgate mcp --gateway http://gateway:8788", description: "With another gateway" }
  ])
)
