/** The state of a running gateway, for `floodgate status --gateway`: limits, calls, places and caps. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { shortNames } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import * as Limits from "floodgate/Limits"
import type * as Exit from "@floodgate/gateway/internal/exit"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"
import type * as Asking from "./asking.ts"
import { ShownCap } from "./caps.ts"
import * as CapTable from "./capTable.ts"
import * as Operating from "./operating.ts"
import * as View from "./run/view.ts"

const millis = Schema.optionalKey(Schema.Finite)
const figure = Schema.NullOr(Schema.Finite)
const dimension = Schema.Literals(Limits.Dimension.literals)

const Pool = Schema.Struct({
  name: Schema.String,
  inFlight: Schema.Finite,
  queued: Schema.Finite,
  allowed: figure,
  pause: Schema.optionalKey(
    Schema.Struct({ reason: Schema.Literals(["rateLimit", "ramp", "overload"]), leftMillis: Schema.Finite })
  ),
  dimensions: Schema.Record(
    dimension,
    Schema.optionalKey(Schema.Struct({ level: figure, capacity: figure, perSecond: figure, limitPerSecond: figure }))
  ),
  known: Schema.Array(
    Schema.Struct({
      what: Schema.Literals(["limit", "share", "inFlight"]),
      dimension: Schema.optionalKey(dimension),
      value: Schema.Finite,
      from: Schema.Literals(["stated", "headers", "rejections"]),
      ageMillis: millis
    })
  )
})

const Status = Schema.Struct({
  at: Schema.Finite,
  places: Schema.Array(
    Schema.Struct({ pool: Schema.String, state: Schema.String, answerMillis: millis, triedAt: millis })
  ),
  pools: Schema.Array(Pool),
  caps: Schema.Array(ShownCap),
  events: Schema.Array(
    Schema.Struct({
      type: Schema.String,
      pool: Schema.optionalKey(Schema.String),
      why: Schema.optionalKey(Schema.String)
    })
  )
})

/** A place with its pool, and how many of the last events say that a call went there, by the reason. */
interface PlaceOfGateway {
  readonly place: (typeof Status.Type)["places"][number]
  readonly pool: typeof Pool.Type | undefined
  readonly came: Readonly<Record<string, number>>
  /** When the status was made. */
  readonly at: number
}

/** The state of a gateway, with its places. */
export interface GatewayState extends Pick<typeof Status.Type, "pools" | "caps"> {
  readonly places: ReadonlyArray<PlaceOfGateway>
}

/** Reads the state of a gateway. */
export const read = (address: Asking.GatewayAddress): Effect.Effect<GatewayState, Exit.CommandError> =>
  Effect.map(Operating.read(address, "status", Status), ({ at, caps, events, places, pools }) => ({
    caps,
    pools,
    places: places.map((place) => {
      const came: Record<string, number> = {}
      for (const { pool, type, why } of events) {
        if (type === "place" && pool === place.pool && why !== undefined) came[why] = (came[why] ?? 0) + 1
      }
      return { place, pool: pools.find(({ name }) => name === place.pool), came, at }
    })
  }))

/** The state as `--json` prints it. */
export const toJson = ({ caps, places, pools }: GatewayState) => ({
  caps,
  pools,
  places: places.map(({ at: _, came, place, pool: { known: __, name: ___, ...pool } = { known: [], name: "" } }) => ({
    ...place,
    ...pool,
    came
  }))
})

const span = (millis: number): string => Words.about(millis / 1_000)

const stateOf = ({ at, place: { state, triedAt }, pool }: PlaceOfGateway): string => {
  const paused = pool?.pause && `paused for ${span(pool.pause.leftMillis)} (${pool.pause.reason})`
  const tried =
    triedAt !== undefined && state !== "trial" && (triedAt > at ? `tried in ${span(triedAt - at)}` : "tried next")
  return [state, paused, tried].filter(Boolean).join(", ")
}

const rateOf = ({ pool }: PlaceOfGateway): string => {
  const parts = Limits.Dimension.literals.flatMap((dimension) => {
    const { perSecond } = pool?.dimensions[dimension] ?? { perSecond: null }
    return perSecond === null ? [] : [`${Words.compact(60 * perSecond)} ${View.names[dimension]}`]
  })
  return parts.length === 0 ? "-" : parts.join(", ")
}

/** The gateway forgets a pool without limits that is idle. */
const inFlightOf = ({ pool }: PlaceOfGateway): string =>
  pool === undefined ? "0" : `${pool.inFlight}${pool.allowed === null ? "" : ` of ${Math.floor(pool.allowed)}`}`

const cameOf = ({ came }: PlaceOfGateway): string => {
  const parts = Object.entries(came).map(([why, count]) => `${count} ${why}`)
  return parts.length === 0 ? "-" : parts.join(", ")
}

const placeLines = (places: ReadonlyArray<PlaceOfGateway>): ReadonlyArray<string> =>
  places.length === 0
    ? []
    : aligned([
        ["place", "state", "an answer takes", "in flight", "waiting", "a minute", "came from elsewhere"],
        ...places.map((each) => [
          oneLine(each.place.pool),
          oneLine(stateOf(each)),
          each.place.answerMillis === undefined ? "-" : span(each.place.answerMillis),
          inFlightOf(each),
          `${each.pool?.queued ?? 0}`,
          oneLine(rateOf(each)),
          oneLine(cameOf(each))
        ])
      ])

const poolLines = (called: string, pool: typeof Pool.Type): ReadonlyArray<string> => {
  const { allowed, dimensions, inFlight, known, pause, queued } = pool
  const bounded = Limits.Dimension.literals.flatMap((dimension) => {
    const { capacity, level, limitPerSecond, perSecond } = dimensions[dimension] ?? { capacity: null, level: null }
    return capacity === null || level === null
      ? []
      : [
          [
            dimension,
            { capacity, level, perSecond: perSecond ?? Infinity, limitPerSecond: limitPerSecond ?? Infinity }
          ] as const
        ]
  })
  const levels = Object.fromEntries(bounded)
  return [
    `pool ${oneLine(called)}`,
    ...View.levelLines(levels),
    View.callsLine("calls", { allowed: allowed ?? Infinity, inFlight, pause }, `${queued}`),
    ...View.knownLines({
      dimensions: levels,
      known: known.map((one) => ({ ageMillis: undefined, dimension: undefined, ...one }))
    })
  ]
}

/** The state in lines of text: the pools, the places, and the caps. */
export const lines = ({ caps, places, pools }: GatewayState): ReadonlyArray<string> => {
  const called = shortNames(pools.map(({ name }) => name))
  const parts = [
    ...pools.map((pool) => poolLines(called(pool.name), pool)),
    placeLines(places),
    CapTable.first(caps.map(({ dollars, ...cap }) => ({ ...cap, limit: dollars })))
  ].filter((part) => part.length > 0)
  return parts.length === 0
    ? ["No call waits or runs at this gateway, and it has no limits, places or caps."]
    : parts.flatMap((part, index) => (index === 0 ? part : ["", ...part]))
}
