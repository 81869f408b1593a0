/** `floodgate status`: shows a budget in Redis, what each process holds of it, and the caps in dollars; or a gateway's places. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Terminal from "effect/Terminal"
import type { SharedStatus } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import * as Limits from "floodgate/Limits"
import * as SharedState from "@floodgate/redis/internal"
import type * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Asking from "./asking.ts"
import * as Painter from "./painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import * as Redis from "@floodgate/gateway/internal/redis"
import * as Places from "./places.ts"
import * as View from "./run/view.ts"
import { aligned, fit, oneLine } from "@floodgate/gateway/internal/text"

const flags = {
  redis: Redis.url("Where the budget is (default: redis://127.0.0.1:6379)").pipe(
    Flag.withDefault("redis://127.0.0.1:6379")
  ),
  redisPrefix: Redis.prefix,
  gateway: Flag.String("gateway").pipe(
    Flag.filter(Asking.isAddress, () => Asking.expected),
    Flag.withMetavar("<url>"),
    Flags.optional("Show the places of this gateway instead")
  ),
  watch: Flags.toggle("watch", "Refresh every second, until Ctrl-C", "w"),
  json: Flags.toggle("json", "Print one JSON object; with --watch, one per line")
}

// -----------------------------------------------------------------------------
// Figures and lines
// -----------------------------------------------------------------------------

type SharedPools = Effect.Success<ReturnType<typeof SharedState.status>>
type SharedCaps = Effect.Success<ReturnType<typeof SharedState.caps>>["caps"]

/** The state that processes share in Redis. */
interface RedisState {
  readonly pools: SharedPools
  readonly caps: SharedCaps
  /** How many caps were not read. */
  readonly moreCaps: number
}

/** How many caps are shown as text. */
const maxShown = 20

/** The status as `--json` prints it. `null` stands for infinite and missing values. */
const toJson = ({ caps, moreCaps, pools }: RedisState) => ({
  caps: caps.map(({ key: _, limit = null, until = null, ...cap }) => ({ ...cap, limit, until })),
  moreCaps,
  pools: pools.map(({ key: _, pause = null, processes, ...pool }) => ({
    ...pool,
    pause,
    processes: processes.map(({ waiting = null, ...process }) => ({ ...process, waiting }))
  }))
})

const charge = (amounts: Limits.Usage): string => {
  const parts = Limits.Dimension.literals.flatMap((dimension) => {
    const amount = dimension === "requests" ? undefined : amounts[dimension]
    return amount === undefined || amount === 0 ? [] : [`${Words.compact(amount)} ${View.names[dimension]}`]
  })
  return parts.length === 0 ? "-" : parts.join(", ")
}

const heads = ["process", "in flight", "holds", "next call needs", "silent for"]

const table = (processes: SharedStatus.SharedPoolStatus["processes"]): ReadonlyArray<string> => {
  if (processes.length === 0) return ["no process uses it"]
  const rows = processes.map(({ held, inFlight, leaseMillis, name, silentMillis, waiting }) => [
    oneLine(name),
    inFlight.toString(),
    charge(held),
    waiting === undefined ? "-" : charge(waiting),
    `${Math.round(silentMillis / 1_000)} s, dead at ${Math.ceil(leaseMillis / 1_000)} s`
  ])
  return aligned([heads, ...rows])
}

const capHeads = ["cap", "spent", "reserved", "of", "until"]

const capLines = ({ caps, moreCaps }: RedisState): ReadonlyArray<string> => {
  const rows = caps
    .filter(({ damaged }) => damaged === undefined)
    .map(({ cap, held, limit, spent, until }) => [
      oneLine(cap),
      Words.dollars(spent),
      Words.dollars(held),
      limit === undefined ? "no cap" : Words.dollars(limit),
      until === undefined ? "-" : new Date(until).toISOString()
    ])
  const damaged = caps.flatMap(({ cap, damaged, key }) =>
    damaged === undefined
      ? []
      : [`cap ${oneLine(cap)} cannot be read: ${oneLine(damaged)}; its key is "${oneLine(key)}"`]
  )
  const more = moreCaps + Math.max(0, rows.length - maxShown)
  return [
    ...(rows.length === 0 ? [] : aligned([capHeads, ...rows.slice(0, maxShown)])),
    ...(more === 0 ? [] : [`and ${more} more`]),
    ...damaged.slice(0, maxShown)
  ]
}

/** The status in lines of text. */
const lines = (state: RedisState): ReadonlyArray<string> => {
  const [pools, caps] = [poolLines(state.pools), capLines(state)]
  return [...pools, ...(pools.length > 0 && caps.length > 0 ? [""] : []), ...caps]
}

const poolLines = (pools: SharedPools): ReadonlyArray<string> =>
  pools.flatMap((pool, index) => {
    const { damaged, dimensions, key, pool: name, processes } = pool
    const apart = index === 0 ? [] : [""]
    if (damaged !== undefined) {
      return [
        ...apart,
        `pool ${oneLine(name)}`,
        `damaged: ${oneLine(damaged)}; delete its key "${oneLine(key)}" if no process replaces it`
      ]
    }
    const waiting = processes.filter(({ waiting }) => waiting !== undefined).length
    return [
      ...apart,
      `pool ${oneLine(name)}`,
      ...View.levelLines(dimensions),
      View.callsLine("calls", pool, `${waiting} of ${Words.counted(processes.length, "process", "processes")}`),
      ...View.knownLines(pool),
      "",
      ...table(processes)
    ]
  })

// -----------------------------------------------------------------------------
// The command
// -----------------------------------------------------------------------------

/** A status, for people and for programs. */
interface Shown {
  readonly text: ReadonlyArray<string>
  readonly json: object
}

type Look = Effect.Effect<Shown, Exit.CommandError>

const ofRedis = (url: string, prefix: string): Look => {
  const nothing = `No process has used a budget named "${prefix}" in ${Redis.shown(url)} lately`
  return Effect.all([SharedState.status({ url, prefix }), SharedState.caps({ url, prefix })]).pipe(
    Effect.map(([pools, { caps, more }]) => {
      const state: RedisState = { pools, caps, moreCaps: more }
      const text = lines(state)
      return { text: text.length === 0 ? [nothing] : text, json: toJson(state) }
    }),
    Effect.mapError(Redis.explained(url))
  )
}

const ofGateway = (address: Asking.GatewayAddress): Look =>
  Effect.map(Places.read(address), (places) => ({ text: Places.lines(places), json: Places.toJson(places) }))

/** The command. */
export const statusCommand = Command.make(
  "status",
  flags,
  Effect.fnUntraced(function* ({ gateway, json, redis, redisPrefix, watch }) {
    const look = Option.isSome(gateway) ? ofGateway(yield* Asking.addressOf(gateway)) : ofRedis(redis, redisPrefix)
    if (!watch) {
      const shown = yield* look
      return yield* json ? Print.json(shown.json, 2) : Print.out(shown.text.join("\n"))
    }
    const terminal = yield* Terminal.Terminal
    const { canAnimate } = yield* TerminalCapabilities.TerminalCapabilities
    const painter = Painter.make(terminal)
    const show = (shown: Shown) => {
      if (json) return Print.json(shown.json)
      if (!canAnimate) return Print.out(`${shown.text.join("\n")}\n`)
      return Effect.flatMap(Painter.sizeOf(terminal), ({ columns, rows }) =>
        painter.draw(shown.text.slice(0, rows - 1).map((line) => fit(line, columns - 1)))
      )
    }
    const changes = Stream.fromEffectSchedule(look, Schedule.spaced("1 second"))
    return yield* Stream.runForEach(changes, show).pipe(
      Effect.ensuring(canAnimate && !json ? painter.end : Effect.void)
    )
  })
).pipe(
  Command.withDescription(
    "Shows a budget that processes share in Redis: what is left of each limit, where its figures come from and how old they are, and for each process its calls in flight, what they hold, and what the first waiting call needs. Then the caps in dollars, those that are used most first. With --gateway it shows the places of a gateway: the state of each, how long an answer takes there, its calls and limits, and why calls came from elsewhere. It changes nothing."
  ),
  Command.withExamples([
    { command: "floodgate status --redis redis://127.0.0.1:6379", description: "The current state" },
    { command: "floodgate status --watch", description: "Live, from the Redis of this machine" },
    { command: "floodgate status --gateway http://127.0.0.1:8788", description: "The places of a gateway" },
    { command: "floodgate status --watch --json", description: "A JSON line per second, for programs" }
  ])
)
