/** `floodgate provider`: serves the simulated provider over HTTP, for any client whose base URL can be set. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type * as HttpServerError from "effect/http/HttpServerError"
import * as Option from "effect/Option"
import { Latency, LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import * as Presets from "floodgate/Presets"
import * as Prices from "floodgate/Prices"
import { ProviderServer } from "floodgate/testing/server"
import type { ProviderSim } from "floodgate/testing"
import * as Listening from "@floodgate/gateway/internal/listening"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import * as Simulated from "./simulated.ts"
import * as Print from "@floodgate/gateway/internal/print"
import { aligned } from "@floodgate/gateway/internal/text"

/** The port that clients are pointed to in the documentation. */
const usualPort = 8787

/** The key that is accepted. */
export const usualKey = "test"

/** The limits of a new account: of Claude's models those of Anthropic's first tier, of all others together those of OpenAI's. */
const usual = {
  pools: Presets.anthropic.start.pools,
  limits: {
    requests: { perMinute: 500, window: "bucket" },
    tokens: { perMinute: 500_000, window: "bucket" }
  } satisfies Limits.Limits
}

/** Models whose prices were not found. */
const unpriced: ReadonlyArray<string> = ["gpt-6", "gemini-3-flash", "gemini-3-pro"]

/** Whether Anthropic, OpenAI or Google has a model of this name. */
const isKnown = (model: string): boolean => Prices.find(model) !== undefined || unpriced.includes(model)

/** The description of a latency whose default depends on whether there is a server. */
const byServer = (what: string, key: keyof typeof Latency.usual): string =>
  `${what} (default: ${Latency.usual[key]}, with --server ${Latency.ofServer[key]})`

const flags = {
  port: Flags.port.pipe(Flags.byDefault("Port to listen on; 0 chooses a free one", usualPort)),
  host: Flags.text("host", "an address or the name of a host").pipe(
    Flags.byDefault("Address to listen on; anything but loopback can be reached from the network", "127.0.0.1")
  ),
  any: Flags.toggle(
    "any",
    `Accept any key and any model, not only the key "${usualKey}" and models of Anthropic, OpenAI and Google`
  ),
  unlimited: Flags.toggle(
    "unlimited",
    "No limits, instead of those of a new account, which apply unless a flag states some or --server is given"
  ),
  ...LimitFlags.flags,
  rejections: Simulated.rejections.pipe(
    Flags.byDefault("Whether a rejected request counts against the limits", "free")
  ),
  server: Flag.Literals("server", ["vllm", "llama.cpp", "ollama"]).pipe(
    Flags.optional("A server of your own, which computes calls in batches and queues the others (default: none)")
  ),
  memoryTokens: Flags.count("memory-tokens").pipe(
    Flags.optional("Tokens of prompts and outputs that fit in the memory of --server (default: no limit)")
  ),
  concurrency: Flags.count("concurrency").pipe(
    Flags.optional("Calls at once (default: no limit; with --server vllm 256, with llama.cpp 4, with ollama 1)")
  ),
  queue: Flags.count("queue").pipe(
    Flags.optional(
      "Further calls that wait for one of --concurrency to end (default: none, they are rejected; with --server no limit, with ollama 512)"
    )
  ),
  busyStatus: Flag.Literals("busy-status", ["429", "503"]).pipe(
    Flags.optional(
      "Status of the calls that are rejected because --concurrency and --queue are reached (default: 429, with --server 503)"
    )
  ),
  headers: Simulated.headers.pipe(Flags.byDefault("Rate limit headers of responses", "rounded")),
  outputTokens: Flags.count("output-tokens", Flags.maxOutputTokens).pipe(
    Flags.optional("Output tokens of every answer (default: those of its text)")
  ),
  latencyBase: Flags.atLeastZero("latency", Flags.maxMillis).pipe(
    Flag.withMetavar("<ms>"),
    Flags.optional(byServer("Milliseconds that every call takes", "baseMillis"))
  ),
  latencyInput: Flags.atLeastZero("latency-per-input-token", Flags.maxMillis).pipe(
    Flag.withMetavar("<ms>"),
    Flags.optional(byServer("Additional milliseconds per input token", "perInputTokenMillis"))
  ),
  latencyOutput: Flags.atLeastZero("latency-per-output-token", Flags.maxMillis).pipe(
    Flag.withMetavar("<ms>"),
    Flags.optional(byServer("Additional milliseconds per output token", "perOutputTokenMillis"))
  ),
  noise: Flags.atLeastZero("latency-noise", 5).pipe(
    Flag.withMetavar("<sigma>"),
    Flags.byDefault("Spread of the latency, with --server of each step: 0 for none, 0.3 for a realistic one", 0)
  ),
  timeScale: Flags.positive("time-scale", 1_000_000).pipe(
    Flag.withMetavar("<x>"),
    Flags.byDefault("How many times faster than real time the provider's time passes", 1)
  ),
  seed: Simulated.seed
}

/** Starts the provider's server. */
export const listen = (options: ProviderServer.Options) =>
  Effect.mapError(ProviderServer.make(options), (error: HttpServerError.ServeError) => {
    const { cause } = error as { readonly cause?: unknown }
    const code = (cause as { readonly code?: unknown } | undefined)?.code
    const why = Listening.refusals[String(code)] ?? String(code ?? cause ?? error.message)
    return Listening.cannotListen(`${options.host ?? "127.0.0.1"}:${options.port ?? 0}`, why)
  })

/** The counters in one line. */
export const summary = (stats: ProviderSim.Stats): string => {
  const by = Object.entries(stats.rejectionsBy).map(([name, count]) => `${name} ${count}`)
  const why = by.length === 0 ? "" : ` (${by.join(", ")})`
  const each = (count: number, what: string) => `${Words.thousands(count)} ${what}`
  return [
    Words.counted(stats.requests, "request"),
    each(stats.completed, "completed"),
    `${each(stats.rejected, "rejected")}${why}`,
    each(stats.failed + stats.broken, "failed"),
    each(stats.aborted, "aborted"),
    ...(stats.inFlight === 0 ? [] : [each(stats.inFlight, "in flight")]),
    `${Words.thousands(stats.inputTokens)} input and ${Words.thousands(stats.outputTokens)} output tokens`
  ].join(", ")
}

/** A description of the server for whoever starts it. */
const about = (url: string, options: ProviderServer.Options): ReadonlyArray<string> => {
  const { keys, limits, pools, server } = options
  const isOpen = keys === undefined
  const key = server === undefined ? "any key" : "none is needed"
  const ofClaude = pools?.["sonnet-5"]
  const rest = limits === undefined ? "none" : LimitWords.limitsText(limits)
  return [
    "It simulates a provider: answers are made up, cost nothing, and need no network.",
    ...aligned([
      ["  key", isOpen ? key : `${usualKey}; any other is answered with 401`],
      [
        "  models",
        isOpen ? "any" : "of Anthropic, OpenAI and Google, such as claude-sonnet-5; others are answered with 404"
      ],
      ...(ofClaude === undefined
        ? [["  limits", rest]]
        : [
            ["  limits", `each class of Claude's models, such as sonnet-5: ${LimitWords.limitsText(ofClaude)}`],
            ["", `all other models together: ${rest}`]
          ]),
      [
        "  client",
        `ANTHROPIC_BASE_URL=${url} ANTHROPIC_API_KEY=${usualKey}, or OPENAI_BASE_URL=${url}/v1 OPENAI_API_KEY=${usualKey}`
      ],
      ["  counters", `${url}/stats`]
    ])
  ]
}

/** The command. */
export const providerCommand = Command.make(
  "provider",
  flags,
  Effect.fnUntraced(function* (given) {
    const memoryTokens = Option.getOrUndefined(given.memoryTokens)
    if (memoryTokens !== undefined && Option.isNone(given.server)) {
      return yield* invalidFlag("provider")("memory-tokens", "--server beside it", String(memoryTokens))
    }
    const server = Option.getOrUndefined(Option.map(given.server, (kind) => ({ kind, memoryTokens })))
    const stated = yield* LimitFlags.checked("provider", given)
    if (given.unlimited && stated !== undefined) {
      return yield* invalidFlag("provider")("unlimited", "nothing: other flags state limits", "true")
    }
    const isOwn = given.unlimited || stated !== undefined || server !== undefined
    const options: ProviderServer.Options = {
      ...(isOwn ? { limits: stated } : usual),
      ...(given.any || server !== undefined ? {} : { keys: [usualKey], models: isKnown }),
      host: given.host,
      port: given.port,
      rejections: given.rejections,
      concurrency: Option.getOrUndefined(given.concurrency),
      queue: Option.getOrUndefined(given.queue),
      busyStatus: Option.getOrUndefined(Option.map(given.busyStatus, (status) => (status === "503" ? 503 : 429))),
      server,
      headers: given.headers,
      outputTokens: Option.getOrUndefined(given.outputTokens),
      latency: {
        baseMillis: Option.getOrUndefined(given.latencyBase),
        perInputTokenMillis: Option.getOrUndefined(given.latencyInput),
        perOutputTokenMillis: Option.getOrUndefined(given.latencyOutput),
        noise: given.noise
      },
      timeScale: given.timeScale,
      seed: given.seed
    }
    const provider = yield* listen(options)
    yield* Print.out([`floodgate provider listening on ${provider.url}`, ...about(provider.url, options)].join("\n"))
    return yield* Effect.onInterrupt(Effect.never, () =>
      Effect.flatMap(provider.stats, (stats) => Print.err(`Stopped: ${summary(stats)}`))
    )
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Serves a simulated provider over HTTP, with the protocols of Anthropic, OpenAI and Gemini, limits, headers and errors. Without flags it has the limits of a new account. Prints its URL and what it accepts when it is ready; GET /stats returns its counters. Ctrl-C stops it."
  ),
  Command.withExamples([
    {
      command: "floodgate provider --port 8787 --input-tokens-per-minute 400000 --requests-per-minute 50",
      description: "A small tier; point any client's base URL to http://127.0.0.1:8787"
    },
    {
      command: "floodgate provider --tokens-per-second 60000 --burst 200000 --rejections charged",
      description: "The provider of the incident"
    },
    {
      command: "floodgate provider --server vllm --concurrency 64 --memory-tokens 50000",
      description: "A server of your own that queues without a limit; its queue is at GET /metrics"
    },
    {
      command: "floodgate provider --server ollama --concurrency 4",
      description: "Ollama with OLLAMA_NUM_PARALLEL=4, which answers 503 when 512 wait"
    },
    {
      command: "floodgate provider --input-tokens-per-minute 2000000 --time-scale 60",
      description: "Simulates an hour in a minute"
    }
  ])
)
