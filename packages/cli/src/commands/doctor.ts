/** `floodgate doctor`: checks the key, the address, the limits and Redis, and says what to change. */
import Anthropic, { APIError } from "@anthropic-ai/sdk"
import * as Cause from "effect/Cause"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Limits from "floodgate/Limits"
import * as FloodgateRedis from "@floodgate/redis"
import * as SharedState from "@floodgate/redis/internal"
import * as Signals from "floodgate/Signals"
import { versions } from "node:process"
import * as Words from "floodgate/internal/words"
import { innermost } from "@floodgate/gateway/internal/errors"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Print from "@floodgate/gateway/internal/print"
import * as Redis from "@floodgate/gateway/internal/redis"
import * as Answering from "./run/answering.ts"
import { hung, oneLine } from "@floodgate/gateway/internal/text"

/** The result of a check, and how to correct it. */
interface Finding {
  readonly state: "ok" | "note" | "fails"
  readonly what: string
  readonly write?: ReadonlyArray<string> | undefined
  /** The exit code if this is the first check that fails. */
  readonly code?: number | undefined
}

const ok = (what: string, write?: ReadonlyArray<string>): Finding => ({ state: "ok", what, write })
const note = (what: string, write?: ReadonlyArray<string>): Finding => ({ state: "note", what, write })
const fails = (code: number, what: string, ...write: ReadonlyArray<string>): Finding => ({
  state: "fails",
  what,
  write,
  code
})

const exportKey = ["# keys: https://console.anthropic.com/settings/keys", "export ANTHROPIC_API_KEY=..."]

// -----------------------------------------------------------------------------
// The provider
// -----------------------------------------------------------------------------

/** Nobody at a terminal waits longer. */
const timeout = Duration.seconds(8)

/** The result of a request to the provider. */
type Reached = { readonly headers: Headers } | { readonly error: unknown }

/** Sends a request once. The body may be endless, so it is not read. */
const reach = (
  { apiKey, baseUrl }: { readonly apiKey: Redacted.Redacted<string>; readonly baseUrl: string },
  ask: (client: Anthropic, signal: AbortSignal) => Promise<Response>
): Effect.Effect<Reached> =>
  Effect.tryPromise({
    try: async (signal) => {
      const client = new Anthropic({ apiKey: Redacted.value(apiKey), baseURL: baseUrl, maxRetries: 0 })
      const { body, headers } = await ask(client, signal)
      await body?.cancel()
      return headers
    },
    catch: (error) => error
  }).pipe(
    Effect.timeout(timeout),
    Effect.match({ onFailure: (error): Reached => ({ error }), onSuccess: (headers): Reached => ({ headers }) })
  )

/** Explains why a request failed, and how to correct it. */
const explained = (error: unknown, address: string): Finding => {
  const status = error instanceof APIError ? error.status : undefined
  if (status === 401 || status === 403) {
    return fails(Exit.codes.usage, `${address} refuses the key (${status})`, ...exportKey)
  }
  if (status === 429) return note(`${address} answers, but is over a limit now (429)`)
  if (status !== undefined && status >= 500) return fails(Exit.codes.network, `${address} fails now (${status})`)
  if (status !== undefined) {
    return fails(Exit.codes.network, `${address} answers ${status}: is it an address of Anthropic's API?`)
  }
  const isLate = Cause.isTimeoutError(error)
  const why = isLate ? `no answer within ${Duration.toSeconds(timeout)} s` : innermost(error)
  const next =
    address === Redis.shown(Answering.usualAddress)
      ? `curl --head ${address}   # whether anything gets through`
      : `unset ANTHROPIC_BASE_URL   # for ${Answering.usualAddress}`
  return fails(Exit.codes.network, `${address} cannot be reached (${oneLine(why)})`, next)
}

/** Requests the list of models, which costs nothing. A gateway without that list is valid as well. */
const reachable = Effect.fnUntraced(function* (credentials: Effect.Success<typeof Answering.credentials> & {}) {
  const address = Redis.shown(credentials.baseUrl)
  const reached = yield* reach(credentials, (client, signal) =>
    client.models.list({ limit: 1 }, { signal }).asResponse()
  )
  if ("headers" in reached) return ok(`${address} answers, and accepts the key`)
  const isWithoutList = reached.error instanceof APIError && reached.error.status === 404
  return isWithoutList
    ? note(`${address} answers. It has no list of models, so the key was not checked: --call checks it`)
    : explained(reached.error, address)
})

/** Fails unless the provider answers and accepts the key. */
export const mustAnswer = Effect.fnUntraced(function* (credentials: Effect.Success<typeof Answering.credentials> & {}) {
  const { code, state, what, write = [] } = yield* reachable(credentials)
  if (state === "fails") {
    return yield* new Exit.CommandError({ exitCode: code ?? Exit.codes.failed, message: [what, ...write].join("\n  ") })
  }
})

const flagOf: Partial<Record<Limits.Dimension, string>> = {
  requests: "--requests-per-minute",
  inputTokens: "--input-tokens-per-minute",
  outputTokens: "--output-tokens-per-minute"
}

/** Makes one call of a few tokens, and reads the limits in its headers. */
const limits = Effect.fnUntraced(function* (
  credentials: Effect.Success<typeof Answering.credentials> & {},
  model: string
) {
  const address = Redis.shown(credentials.baseUrl)
  const reached = yield* reach(credentials, (client, signal) =>
    client.messages
      .create({ model, max_tokens: 1, messages: [{ role: "user", content: "Hi" }] }, { signal })
      .asResponse()
  )
  if ("error" in reached) return explained(reached.error, address)
  const signal = Signals.fromHeaders(reached.headers)
  const known = Limits.Dimension.literals.flatMap((dimension) => {
    const limit = signal?.dimensions[dimension]?.limit
    return limit === undefined || flagOf[dimension] === undefined ? [] : [{ dimension, limit }]
  })
  if (known.length === 0)
    return note("A call was answered. Its headers state no limits, so they will be learned from rejections")
  const entries = known.map(({ dimension, limit }) => `${dimension}: { perMinute: ${limit} }`)
  return ok("A call was answered. Its headers state these limits; with them, no run has to learn them:", [
    known.map(({ dimension, limit }) => `${flagOf[dimension]} ${limit}`).join(" "),
    `Floodgate.create({ limits: { ${entries.join(", ")} } })`
  ])
})

const provider = Effect.fnUntraced(function* (model: string, calls: boolean) {
  const found = yield* Effect.result(Answering.credentials)
  if (found._tag === "Failure") return [fails(found.failure.exitCode, found.failure.message)]
  const credentials = found.success
  if (credentials === undefined) {
    const what = "ANTHROPIC_API_KEY is not set, so `run` uses the embedded simulated provider"
    return [note(what, exportKey)]
  }
  const checks = [ok("ANTHROPIC_API_KEY is set"), yield* reachable(credentials)]
  if (checks.some(({ state }) => state === "fails")) return checks
  return [
    ...checks,
    calls
      ? yield* limits(credentials, model)
      : note("The limits were not read: --call reads them with a call of a few tokens")
  ]
})

// -----------------------------------------------------------------------------
// The rest
// -----------------------------------------------------------------------------

/** The first minor version of the SDK with middlewares. Older ones ignore the option. */
const firstWithMiddleware = 103

const Manifest = Schema.fromJsonString(Schema.Struct({ version: Schema.String }))

const isTooOld = (version: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major === 0 && minor < firstWithMiddleware
}

/** The copies of the SDK in this project that ignore middlewares: its own, and those of its packages. */
const sdks = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const entries = (folder: string) => Effect.orElseSucceed(fs.readDirectory(folder), () => [])
  const scoped = (folder: string) => Effect.map(entries(folder), (names) => names.map((name) => `${folder}/${name}`))
  const top = (yield* entries("node_modules")).map((name) => `node_modules/${name}`)
  const nested = yield* Effect.forEach(top, (folder) =>
    folder.includes("/@") ? scoped(folder) : Effect.succeed([folder])
  )
  const checks: Array<Finding> = []
  for (const at of [".", ...nested.flat()]) {
    const place = `${at === "." ? "" : `${at}/`}node_modules/@anthropic-ai/sdk`
    const file = `${place}/package.json`
    if (!(yield* Effect.orElseSucceed(fs.exists(file), () => false))) continue
    const text = yield* Effect.option(fs.readFileString(file))
    const found = Option.flatMap(text, Schema.decodeUnknownOption(Manifest))
    if (Option.isNone(found) || !isTooOld(found.value.version)) continue
    const what = `@anthropic-ai/sdk ${found.value.version} in ${place} ignores middleware: pass its clients \`fetch\` instead`
    checks.push(note(what, ["new Anthropic({ fetch: floodgate.fetch, maxRetries: 0 })"]))
  }
  return checks
})

/** Checks what a run needs of Redis, and reads the pools there if the user may see them, which a run does not need. */
const redis = (at: { readonly url: string; readonly prefix: string }): Effect.Effect<Finding> => {
  const pools = Effect.catchIf(SharedState.status(at), Redis.isForbidden, () => Effect.undefined)
  return Effect.match(Effect.andThen(FloodgateRedis.check(at), pools), {
    onFailure: (error) => {
      const { exitCode, message } = Redis.explained(at.url)(error)
      const hasAnswered = !message.startsWith("no Redis")
      return fails(
        exitCode,
        message,
        ...(hasAnswered ? [] : ["docker run --detach --publish 127.0.0.1:6379:6379 redis"])
      )
    },
    onSuccess: (pools) => {
      if (pools === undefined) {
        return ok(`Redis at ${Redis.shown(at.url)} answers; its user needs +scan only for \`floodgate status\``)
      }
      const damaged = pools.find((pool) => pool.damaged !== undefined)
      if (damaged !== undefined) {
        const { damaged: why, key, pool } = damaged
        return fails(
          Exit.codes.failed,
          `In Redis at ${Redis.shown(at.url)} the state of pool "${pool}" is damaged: ${why}; delete its key "${key}" if no process replaces it`
        )
      }
      const processes = new Set(pools.flatMap(({ processes }) => processes.map(({ name }) => name))).size
      const used = `${Words.counted(pools.length, "pool")}, ${Words.counted(processes, "process", "processes")}`
      return ok(`Redis at ${Redis.shown(at.url)} answers; the budget "${at.prefix}" there has ${used}`)
    }
  })
}

const marks = { ok: "ok     ", note: "note   ", fails: "FAILS  " } as const

const linesOf = ({ state, what, write = [] }: Finding, columns: number): ReadonlyArray<string> => [
  `${marks[state]}${hung(oneLine(what), marks[state].length, columns)}`,
  ...write.map((line) => `${" ".repeat(marks[state].length + 2)}${line}`)
]

const flags = {
  call: Flags.toggle("call", "Make one call of a few tokens to the provider, and read the limits in its answer"),
  model: Flags.text("model", "the name of a model").pipe(Flags.byDefault("The model for --call", "claude-sonnet-5")),
  redis: Redis.url("Also check this Redis (default: none)").pipe(Flag.optional),
  redisPrefix: Redis.prefix
}

/** The command. */
export const doctorCommand = Command.make(
  "doctor",
  flags,
  Effect.fnUntraced(function* ({ call, model, redis: url, redisPrefix: prefix }) {
    const checks: ReadonlyArray<Finding> = [
      // The command refuses to start in an older version than it needs.
      ok(`Node ${versions.node}`),
      ...(yield* provider(model, call)),
      ...(yield* sdks),
      ...(Option.isSome(url) ? [yield* redis({ url: url.value, prefix })] : [])
    ]
    const { stdout } = yield* Print.Room
    yield* Print.out(checks.flatMap((check) => linesOf(check, stdout)).join("\n"))
    const failed = checks.filter(({ state }) => state === "fails")
    if (failed.length > 0) {
      return yield* new Exit.CommandError({
        message: `${Words.counted(failed.length, "check")} failed`,
        exitCode: failed[0]!.code ?? Exit.codes.failed
      })
    }
  })
).pipe(
  Command.withDescription(
    "Checks what a run needs: the version of Node, copies of the SDK that are too old for middleware, ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL, whether the provider answers and accepts the key, with --call its limits, and with --redis the shared budget. It says how to correct what is wrong. Without --call it spends nothing."
  ),
  Command.withExamples([
    { command: "floodgate doctor", description: "Spends nothing" },
    { command: "floodgate doctor --call", description: "Reads the limits, with a call of a few tokens" },
    { command: "floodgate doctor --redis redis://127.0.0.1:6379", description: "Also checks the shared budget" }
  ])
)
