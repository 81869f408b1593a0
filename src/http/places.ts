/**
 * The places of governed HTTP requests. They share the format of the body, and differ in address, credential, the model's name and
 * further fields of the body. Nothing is translated between protocols.
 */
import * as Redacted from "effect/Redacted"
import { baseUrl } from "./baseUrl.ts"
import * as Input from "../domain/input/checks.ts"
import * as PriceTable from "../domain/prices.ts"
import type { CallPlace, CallPlaces } from "../places/models.ts"
import {
  bodyOf,
  type ParsedPlaces,
  parsePlaces,
  placeChecks,
  placesCheck,
  type PlacesOptions
} from "../places/parse.ts"
import * as Prices from "../Prices.ts"
import { isRecord, parseJson } from "../protocol/json.ts"
import { decodeSegment, pathOf } from "../protocol/protocol.ts"
import { type Accounts, type CredentialName, identityOf } from "./account.ts"
import { credentialLocation, headerWith, replacedIn } from "./credentials.ts"
import type { BodyChange, HttpCall, HttpPlace, Target } from "./models.ts"

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const address = Input.that(
  "a URL such as https://api.openai.com/v1",
  (value) => typeof value === "string" && baseUrl(value, "query") !== undefined
)

const key = Input.secret("a key", (value) => {
  if (value === null) return true
  const secret: unknown = Redacted.isRedacted(value) ? Redacted.value(value) : value
  return typeof secret === "string" && secret.trim() !== ""
})

const httpPlace = Input.options<HttpPlace>({ ...placeChecks, url: address, key }, "name")

const secretOf = ({ key }: HttpPlace): string | null | undefined =>
  Redacted.isRedacted(key) ? Redacted.value(key) : key

const addressOf = (place: HttpPlace): string => JSON.stringify([URL.parse(place.url ?? "")?.host, secretOf(place)])

/** The credential of a caller belongs to one provider. `remedy` says how to give another credential to the others. */
const credentials =
  (remedy: string): Input.Check =>
  (value) => {
    for (const [model, places] of Object.entries((value as PlacesOptions<HttpPlace>).models)) {
      const without = places.filter(({ key, url }) => key === undefined && url !== undefined)
      const other = without.find(({ url }) => URL.parse(url!)!.origin !== URL.parse(without[0]!.url!)!.origin)
      if (other !== undefined) {
        const text = `"${other.name}" needs a key, because the caller's goes to its own provider only: ${remedy}`
        return { place: `.models[${JSON.stringify(model)}]`, text }
      }
    }
    return undefined
  }

/** Checks places of HTTP requests. With the prices of the governor, it also checks that `"cheapest"` knows all of them. */
export const httpPlaces = (prices?: PriceTable.Table, remedy = "add it"): Input.Check => {
  const table = { ...Prices.published, ...prices }
  const isPriced = (model: string): boolean => prices === undefined || PriceTable.find(model, table) !== undefined
  return Input.all(placesCheck<HttpPlace>(httpPlace, addressOf, isPriced), credentials(remedy))
}

// -----------------------------------------------------------------------------
// Planning
// -----------------------------------------------------------------------------

/** The header of a request that names the only places where it may go, separated by commas. */
export const placesHeader = "x-floodgate-places"

/** The places of each model. */
export type PlacesByModel = ReadonlyMap<string, ParsedPlaces<HttpPlace>>

export const parseHttpPlaces = (options: PlacesOptions<HttpPlace> | undefined): PlacesByModel =>
  options === undefined ? new Map() : parsePlaces(options)

/** Parameters of the query in which Google accepts a credential. */
const credentialsInQuery = ["key", "$key", "access_token", "oauth_token"] as const

/** The request of a call at a place. */
const targetOf = (planned: HttpCall, place: HttpPlace): Omit<Target, "account" | "identity"> => {
  const { match, request } = planned
  const isInPath = match.route.model !== undefined
  const { model, ...others } = bodyOf(place, request.protocol)
  const url = urlAt(planned, place)
  const credential = credentialOf(place, planned, url)
  const isCallers = place.key === undefined
  const header = isCallers ? request.header : replacedIn(request.header, credential)
  return {
    request: { protocol: request.protocol, url, header },
    isCallers,
    place,
    fields: isInPath || model === undefined ? others : { model, ...others },
    credential
  }
}

/** The requests of a call at each of its places. A tier has limits of its own. */
export const targetsOf = async (
  planned: HttpCall,
  { byName }: ParsedPlaces<HttpPlace>,
  accounts: Accounts,
  nameOf: CredentialName | undefined
): Promise<ReadonlyArray<Target>> =>
  Promise.all(
    Array.from(byName.values(), async ({ given }) => {
      const target = targetOf(planned, given)
      const { account, tier } = given
      const identity = identityOf(target.request)
      const own = account ?? (await accounts.of(identity, nameOf))
      return {
        ...target,
        account: tier === undefined ? own : `${own} ${tier}`,
        identity: account === undefined && tier === undefined ? identity : undefined
      }
    })
  )

const credentialOf = (place: HttpPlace, { request }: HttpCall, url: string): Target["credential"] => {
  const value = secretOf(place)
  if (value === undefined || value === null) return undefined
  return headerWith(credentialLocation(request.protocol, url), value)
}

const urlAt = ({ match: { route }, request }: HttpCall, { key, model, url }: HttpPlace): string => {
  const own = new URL(request.url)
  const base = url === undefined ? undefined : new URL(url)
  if (key !== undefined) for (const name of credentialsInQuery) own.searchParams.delete(name)
  const path = base === undefined ? own.pathname : joined(base.pathname, route.path)
  const named = route.model === undefined || model === undefined ? path : withModel(path, route.model, model)
  const search = base === undefined || base.search === "" ? own.search : base.search
  return `${(base ?? own).origin}${named}${search}`
}

/** A base path and the path of a route. Both may name the version. */
const joined = (base: string, path: string): string => {
  const whole = `${base.replace(/\/+$/, "")}${path}`
  return base === "/" ? path : (pathOf(whole) ?? whole)
}

/** Replaces the model in a path, such as `/v1beta/models/gemini-3-pro:generateContent`. */
const withModel = (path: string, model: string, other: string): string =>
  path
    .split("/")
    .map((segment) => {
      const [name = "", ...action] = decodeSegment(segment).split(":")
      return name === model ? [encodeURIComponent(other), ...action].join(":") : segment
    })
    .join("/")

/** The places of a call for the governor, and where each is. */
export const callPlacesOf = (
  planned: HttpCall,
  { call }: ParsedPlaces<HttpPlace>,
  targets: ReadonlyArray<Target>,
  accountingOf: (url: string) => NonNullable<CallPlace["accounting"]>
): CallPlaces => ({
  ...call,
  places: call.places.map((place, index) => ({
    ...place,
    account: targets[index]!.account,
    accounting: place.accounting ?? accountingOf(targets[index]!.request.url),
    closed: place.closed ?? closedBecause(planned, targets, index)
  }))
})

const closedBecause = (
  { request, text }: HttpCall,
  targets: ReadonlyArray<Target>,
  index: number
): CallPlace["closed"] => {
  const { account, fields, isCallers, request: at } = targets[index]!
  const isOwn = new URL(at.url).origin === new URL(request.url).origin
  if (isCallers && !isOwn) return "noCredential"
  if (targets.slice(0, index).some((other) => other.account === account)) return "twin"
  return Object.keys(fields).length > 0 && text === undefined ? "fixedBody" : undefined
}

/** The change of the body for a place, together with a change for all places. */
export const changeAt = (
  { text }: HttpCall,
  { fields }: Target,
  change: BodyChange | undefined
): BodyChange | undefined => {
  if (Object.keys(fields).length === 0 || text === undefined) return change
  const given = parseJson(change !== undefined && "text" in change ? change.text : text())
  if (!isRecord(given)) return change
  const inserted =
    change !== undefined && "insert" in change ? parseJson(`{${change.insert.replace(/,\s*$/, "")}}`) : {}
  return { text: JSON.stringify({ ...(isRecord(inserted) ? inserted : {}), ...given, ...fields }) }
}
