/** The places of models as the options of a gateway name them, and requests to them. */
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type { HttpPlace } from "floodgate/fetch"
import { type Engine, httpPlaces, type Input } from "floodgate/internal"
import { hint } from "floodgate/internal/nearest"
import type * as Places from "floodgate/Places"
import * as Headers from "./headers.ts"
import type { ProgramSettings } from "./settings/index.ts"
import type * as Values from "./settings/values.ts"

/**
 * A place of a model: an upstream of the gateway, perhaps with another name of the model, a tier, or limits.
 *
 * @stability unstable
 * @category options
 * @since 0.4.0
 */
export interface GatewayPlace extends Schema.Schema.Type<typeof Values.Place> {}

/** The options of a gateway that concern places. */
type PlaceOptions = Pick<ProgramSettings, "places" | "placePolicy" | "placeWithin">

/** A place with its upstream. */
export interface UpstreamPlace extends HttpPlace {
  readonly upstream: string
}

/** The places of all models. */
export interface UpstreamPlaces extends Places.PlacesOptions<UpstreamPlace> {}

type Credentials = Readonly<Record<string, Redacted.Redacted<string> | null>>

/** The places for the engine; undefined if there are none. */
export const placesOf = (
  { placePolicy: policy, placeWithin: within, places }: PlaceOptions,
  upstreams: Readonly<Record<string, string>>,
  credentials: Credentials = {}
): UpstreamPlaces | undefined => {
  if (places === undefined) return undefined
  const placeOf = ({ upstream, ...place }: GatewayPlace): UpstreamPlace => ({
    ...place,
    name: place.name ?? (place.tier === undefined ? upstream : `${upstream}-${place.tier}`),
    url: upstreams[upstream],
    key: credentials[upstream],
    upstream
  })
  const models = Object.fromEntries(Object.entries(places).map(([model, list]) => [model, list.map(placeOf)]))
  return { models, policy, within }
}

/** The problem of the places; undefined if there is none. */
export const problemOf = (
  options: PlaceOptions,
  upstreams: Readonly<Record<string, string>>,
  credentials: Credentials | undefined
): ReturnType<Input.Check> => {
  const known = Object.keys(upstreams)
  for (const [model, list] of Object.entries(options.places ?? {})) {
    for (const [index, { upstream }] of list.entries()) {
      if (Object.hasOwn(upstreams, upstream)) continue
      const text = `no upstream has this name: ${hint(upstream, known)}`
      return { place: `.places[${JSON.stringify(model)}][${index}].upstream`, text }
    }
  }
  const parsed = placesOf(options, upstreams, credentials)
  if (parsed === undefined) return undefined
  const remedy = "set `keys` for the callers, and `credentials` for the upstreams"
  const found = httpPlaces({}, remedy)({ ...parsed, models: withoutUpstream(parsed.models) })
  return found && { ...found, place: `.places${found.place.replace(/^\.models/, "")}` }
}

const withoutUpstream = (models: Places.PlacesOptions<UpstreamPlace>["models"]) =>
  Object.fromEntries(
    Object.entries(models).map(([model, places]) => [model, places.map(({ upstream: _, ...place }) => place)])
  )

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** The destination of an attempt, and the path and headers of its request. */
interface AddressedAttempt {
  readonly upstream: string
  readonly path: string
  readonly headers: ReadonlyArray<string>
}

/** The request of an attempt at a place. */
export const addressed = (headers: ReadonlyArray<string>, target: Engine.Target): AddressedAttempt => {
  const { place, request } = target
  const { pathname, search } = new URL(request.url)
  return {
    upstream: (place as UpstreamPlace).upstream,
    path: `${pathname}${search}`,
    headers: target.isCallers ? headers : Headers.replaced(headers, target.credential)
  }
}

/** The name of the upstream of a place; undefined if a call had none. */
export const upstreamOfPlace = (
  { models }: Pick<Places.PlacesOptions<UpstreamPlace>, "models">,
  model: string,
  place: string | undefined
): string | undefined =>
  // Models are named by callers.
  Object.hasOwn(models, model) ? models[model]!.find(({ name }) => name === place)?.upstream : undefined
