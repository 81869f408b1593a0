/** The places of a running gateway, for `floodgate status --gateway`: the state of each, and why calls went there. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Words from "floodgate/internal/words"
import type * as Exit from "@floodgate/gateway/internal/exit"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"
import type * as Asking from "./asking.ts"
import * as Operating from "./operating.ts"

const millis = Schema.optionalKey(Schema.Finite)

const Status = Schema.Struct({
  at: Schema.Finite,
  places: Schema.Array(
    Schema.Struct({ pool: Schema.String, state: Schema.String, answerMillis: millis, triedAt: millis })
  ),
  pools: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      inFlight: Schema.Finite,
      queued: Schema.Finite,
      allowed: Schema.NullOr(Schema.Finite),
      pause: Schema.optionalKey(Schema.Struct({ reason: Schema.String, leftMillis: Schema.Finite })),
      dimensions: Schema.Record(Schema.String, Schema.Struct({ perSecond: Schema.NullOr(Schema.Finite) }))
    })
  ),
  events: Schema.Array(
    Schema.Struct({
      type: Schema.String,
      pool: Schema.optionalKey(Schema.String),
      why: Schema.optionalKey(Schema.String)
    })
  )
})

/** A place with its pool, and how many of the last events say that a call went there, by the reason. */
export interface PlaceOfGateway {
  readonly place: (typeof Status.Type)["places"][number]
  readonly pool: (typeof Status.Type)["pools"][number] | undefined
  readonly came: Readonly<Record<string, number>>
  /** When the status was made. */
  readonly at: number
}

/** Reads the places of a gateway. */
export const read = (address: Asking.GatewayAddress): Effect.Effect<ReadonlyArray<PlaceOfGateway>, Exit.CommandError> =>
  Effect.map(Operating.read(address, "status", Status), ({ at, events, places, pools }) =>
    places.map((place) => {
      const came: Record<string, number> = {}
      for (const { pool, type, why } of events) {
        if (type === "place" && pool === place.pool && why !== undefined) came[why] = (came[why] ?? 0) + 1
      }
      return { place, pool: pools.find(({ name }) => name === place.pool), came, at }
    })
  )

/** The places as `--json` prints them. */
export const toJson = (places: ReadonlyArray<PlaceOfGateway>) => ({
  places: places.map(({ at: _, came, place, pool: { name: __, ...pool } = { name: "" } }) => ({
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

const names: Readonly<Record<string, string>> = {
  requests: "requests",
  inputTokens: "input",
  outputTokens: "output",
  tokens: "tokens"
}

const rateOf = ({ pool }: PlaceOfGateway): string => {
  const parts = Object.entries(pool?.dimensions ?? {}).flatMap(([dimension, { perSecond }]) =>
    perSecond === null ? [] : [`${Words.compact(60 * perSecond)} ${names[dimension]}`]
  )
  return parts.length === 0 ? "-" : parts.join(", ")
}

/** The gateway forgets a pool without limits that is idle. */
const inFlightOf = ({ pool }: PlaceOfGateway): string =>
  pool === undefined ? "0" : `${pool.inFlight}${pool.allowed === null ? "" : ` of ${Math.floor(pool.allowed)}`}`

const cameOf = ({ came }: PlaceOfGateway): string => {
  const parts = Object.entries(came).map(([why, count]) => `${count} ${why}`)
  return parts.length === 0 ? "-" : parts.join(", ")
}

/** The places in lines of text. */
export const lines = (places: ReadonlyArray<PlaceOfGateway>): ReadonlyArray<string> =>
  places.length === 0
    ? ["No call has gone to one of several places: set `places` in the configuration of the gateway."]
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
