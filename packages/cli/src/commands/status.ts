/** `floodgate status`: shows the limits, calls and caps of a budget in Redis, and what each process holds of it; or of a gateway. */
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
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Asking from "./asking.ts"
import * as CapTable from "./capTable.ts"
import * as Painter from "./painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import * as Redis from "@floodgate/gateway/internal/redis"
import * as GatewayStatus from "./gatewayStatus.ts"
import * as View from "./run/view.ts"
import { aligned, fit, oneLine } from "@floodgate/gateway/internal/text"

const usualRedis = "redis://127.0.0.1:6379"

const flags = {
  redis: Redis.url(`Where the budget is (default: ${usualRedis})`).pipe(Flag.optional),
  redisPrefix: Redis.prefix,
  gateway: Flag.String("gateway").pipe(
    Flag.filter(Asking.isAddress, () => Asking.expected),
    Flag.withMetavar("<url>"),
    Flags.optional("Show this gateway instead: its limits, calls, places and caps")
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

const capLines = ({ caps, moreCaps }: RedisState): ReadonlyArray<string> => {
  const rows = caps.filter(({ damaged }) => damaged === undefined).map((cap) => ({ ...cap, name: cap.cap }))
  const damaged = caps.flatMap(({ cap, damaged, key }) =>
    damaged === undefined
      ? []
      : [`cap ${oneLine(cap)} cannot be read: ${oneLine(damaged)}; its key is "${oneLine(key)}"`]
  )
  return [...CapTable.first(rows, moreCaps), ...damaged.slice(0, CapTable.maxShown)]
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
  const nothing = `No process has used a budget named "${prefix}" in ${Redis.shown(url)} lately: --redis-prefix names another`
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
  Effect.map(GatewayStatus.read(address), (state) => ({
    text: GatewayStatus.lines(state),
    json: GatewayStatus.toJson(state)
  }))

/** Looks where the flags say. Who names nothing and has no Redis may mean a gateway. */
const lookAt = Effect.fnUntraced(function* (
  gateway: Option.Option<string>,
  redis: Option.Option<string>,
  prefix: string
) {
  if (Option.isNone(gateway)) {
    const look = ofRedis(
      Option.getOrElse(redis, () => usualRedis),
      prefix
    )
    if (Option.isSome(redis)) return look
    return Effect.mapError(
      look,
      ({ exitCode, message }) =>
        new Exit.CommandError({
          exitCode,
          message: `${message}; for a gateway, add --gateway ${Asking.usualAddress}`
        })
    )
  }
  if (Option.isSome(redis)) return yield* invalidFlag("status")("redis", "nothing: --gateway is given", redis.value)
  return ofGateway(yield* Asking.addressOf(gateway))
})

/** The command. */
export const statusCommand = Command.make(
  "status",
  flags,
  Effect.fnUntraced(function* ({ gateway, json, redis, redisPrefix, watch }) {
    const look = yield* lookAt(gateway, redis, redisPrefix)
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
    "Shows what is left of each limit, where its figures come from and how old they are, the calls in flight and waiting, and the caps in dollars, those that are used most first. Of a budget in Redis it shows what each process holds, and what its first waiting call needs. Of a gateway it shows its places: the state of each, how long an answer takes there, and why calls came from elsewhere. It changes nothing."
  ),
  Command.withExamples([
    { command: "floodgate status --redis redis://127.0.0.1:6379", description: "The current state" },
    { command: "floodgate status --watch", description: "Live, from the Redis of this machine" },
    { command: "floodgate status --gateway http://127.0.0.1:8788", description: "The same of a gateway" },
    { command: "floodgate status --watch --json", description: "A JSON line per second, for programs" }
  ])
)
