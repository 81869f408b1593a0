/** Checks places as users write them, and converts them for a governor. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Accounting from "../Accounting.ts"
import * as Concurrency from "../domain/concurrency.ts"
import * as Input from "../domain/input/checks.ts"
import * as PriceTable from "../domain/prices.ts"
import type { Price } from "../Prices.ts"
import * as Rules from "../domain/rules.ts"
import type * as Limits from "../Limits.ts"
import { tierOf } from "../protocol/openai.ts"
import { type CallPlace, type CallPlaces, policy } from "./models.ts"

/**
 * A place where a model can be called.
 *
 * @stability stable
 * @category options
 * @since 0.4.0
 */
export interface Place {
  /** Its name in the status, in events and in replies. */
  readonly name: string
  /** The model's name at this place. @default the name under which it is called */
  readonly model?: string | undefined
  /**
   * The provider's tier, such as `flex`, `priority` or `fast`. It is sent as `service_tier`, or as `speed` for Anthropic's fast
   * mode. A tier has a pool of its own.
   *
   * @default the one that the request names
   */
  readonly tier?: string | undefined
  /** The price at this place, without the factor of the tier. @default that of `model` in `Prices.published` */
  readonly price?: Price | undefined
  /** The provider's limits at this place. @default those of the budget */
  readonly limits?: Limits.Limits | undefined
  /**
   * The limit of calls in flight at this place: a number, or `"measured"` for a server of your own that queues any number of calls.
   *
   * @default that of the budget
   */
  readonly concurrency?: Concurrency.Concurrency | undefined
  /** The account whose limits apply. @default the name of the place */
  readonly account?: string | undefined
  /** How the provider counts. @default as the client or the route says */
  readonly accounting?: Accounting.Accounting | undefined
  /** Further fields of the body of each request. @default none */
  readonly body?: Readonly<Record<string, unknown>> | undefined
  /** Whether the place takes no new calls, save those that continue what it stores. @default false */
  readonly drain?: boolean | undefined
}

/**
 * The places of each model, and how one is chosen.
 *
 * @stability stable
 * @category options
 * @since 0.4.0
 */
export interface PlacesOptions<P extends Place> {
  /** The places by the name under which a model is called. */
  readonly models: Readonly<Record<string, ReadonlyArray<P>>>
  /**
   * The rule by which a place is chosen.
   *
   * - `"soonest"`: a call goes where it ends first; ties by price, then by the order of the places
   * - `"cheapest"`: a call goes to the cheapest place that is expected to answer before the deadline
   *
   * @default "soonest"
   */
  readonly policy?: "soonest" | "cheapest" | undefined
  /** For `"cheapest"`: how long a call may take. @default the deadline of `Retry.withDeadline`, or no bound */
  readonly within?: Duration.Input | undefined
}

/** A place and what a request to it has. */
export interface ParsedPlace<P extends Place> {
  readonly given: P
  readonly call: CallPlace
}

/** The places of a model. */
export interface ParsedPlaces<P extends Place> {
  readonly byName: ReadonlyMap<string, ParsedPlace<P>>
  readonly call: CallPlaces
}

/** The places of a client's models, which its governor then knows before the first call. */
export const StatedPlaces = /* @__PURE__ */ Context.Reference<ReadonlyMap<string, CallPlaces>>(
  "floodgate/Places/StatedPlaces",
  {
    defaultValue: () => new Map()
  }
)

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** A place's name is part of headers and of the names of pools. */
const name = Input.that(
  "letters, digits, dots, hyphens and underscores",
  (value) => typeof value === "string" && /^[\w.-]{1,64}$/.test(value)
)

/** The check of each option of a place. */
export const placeChecks: Input.Checks<Place> = {
  name,
  model: Input.text,
  tier: Input.text,
  price: PriceTable.price,
  limits: Rules.check,
  concurrency: Concurrency.check,
  account: Input.text,
  accounting: Input.accounting,
  body: Input.anObject,
  drain: Input.flag
}

/** Checks places. `identityOf` gives what two places of one limit have in common. */
export const placesCheck = <P extends Place>(
  each: Input.Check,
  identityOf: (place: P) => unknown,
  isPriced: (model: string) => boolean
): Input.Check =>
  Input.all(
    Input.options<PlacesOptions<P>>({ models: Input.record(Input.list(each)), policy, within: Input.span }, "models"),
    (value) => {
      const { models, policy } = value as PlacesOptions<P>
      for (const [model, places] of Object.entries(models)) {
        const text = problemOf(model, places, identityOf, policy === "cheapest" ? isPriced : () => true)
        if (text !== undefined) return { place: `.models[${JSON.stringify(model)}]`, text }
      }
      return undefined
    }
  )

const problemOf = <P extends Place>(
  model: string,
  places: ReadonlyArray<P>,
  identityOf: (place: P) => unknown,
  isPriced: (model: string) => boolean
): string | undefined => {
  if (places.length === 0) return "expected at least one place, got none"
  for (const [index, place] of places.entries()) {
    const before = places.slice(0, index)
    if (before.some(({ name }) => name === place.name)) return `two places have the name "${place.name}": rename one`
    const twin = before.find((other) => isOneLimit(other, place, identityOf))
    if (twin !== undefined) {
      return `"${twin.name}" and "${place.name}" have one limit, because they are one provider, credential and tier: remove one`
    }
    if (place.price === undefined && !isPriced(place.model ?? model)) {
      return `the policy "cheapest" needs the price of "${place.name}", and none is published for ${JSON.stringify(place.model ?? model)}: add price: { input, output }`
    }
  }
  return undefined
}

const isOneLimit = <P extends Place>(one: P, other: P, identityOf: (place: P) => unknown): boolean => {
  if (one.tier !== other.tier) return false
  if (one.account !== undefined || other.account !== undefined) return one.account === other.account
  return one.model === other.model && identityOf(one) === identityOf(other)
}

// -----------------------------------------------------------------------------
// Conversion
// -----------------------------------------------------------------------------

/** The places of each model for a governor. */
export const parsePlaces = <P extends Place>(
  { models, policy, within }: PlacesOptions<P>,
  more: (place: P) => Partial<CallPlace> = () => ({})
): ReadonlyMap<string, ParsedPlaces<P>> =>
  new Map(
    Object.entries(models).map(([model, places]) => {
      const parsed = places.map((given) => ({ given, call: { ...callPlaceOf(model, given), ...more(given) } }))
      const byName = new Map(parsed.map((each) => [each.given.name, each]))
      return [model, { byName, call: { places: parsed.map(({ call }) => call), policy, within } }]
    })
  )

const callPlaceOf = (
  asked: string,
  { account, accounting, concurrency, drain = false, limits, model = asked, name, price, tier }: Place
): CallPlace => ({
  name,
  model,
  account,
  accounting,
  price,
  limits,
  concurrency,
  closed: drain ? "drained" : undefined,
  ...(tier === undefined ? {} : { fast: false, flex: false, priceFactor: 1, ...tierOf(tier) })
})

/** The fields of the body that differ at a place from what the caller wrote. */
export const bodyOf = ({ body, model, tier }: Place, protocol: string): Readonly<Record<string, unknown>> => ({
  ...(model === undefined ? {} : { model }),
  ...(tier === undefined ? {} : tierFields(tier, protocol)),
  ...body
})

const tierFields = (tier: string, protocol: string): Readonly<Record<string, unknown>> =>
  protocol === "anthropic-messages" && tier === "fast" ? { speed: "fast" } : { service_tier: tier }
